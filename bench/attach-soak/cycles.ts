/** Attaches, runs and closes in one process, again and again, with swaps in between. */
import { attach } from '../../cluster/index.js'
import { collectStartupGarbage } from '../../src/process/collect-garbage.js'
import type { FolderUse } from '../harness/footprint.js'
import { openFiles } from '../harness/footprint.js'
import type { Check } from '../harness/report.js'
import { valuesOf } from './orders.js'
import type { World } from './world.js'

/** Libraries are loaded and pools are full by then. */
const WARM_UP_CYCLES = 10

interface Held {
  readonly ownFiles: number
  /** Segments that this process maps. */
  readonly ownSegments: number
  readonly ownerFiles: number
  readonly memory: FolderUse
}

export interface CyclesResult {
  readonly cycles: number
  readonly swaps: number
  readonly before: Held
  readonly after: Held
}

async function heldNow(world: World): Promise<Held> {
  await world.released()
  // Mappings last until their views are collected.
  await collectStartupGarbage()
  return {
    ownFiles: openFiles(process.pid),
    ownSegments: world.segmentsMappedBy(process.pid),
    ownerFiles: world.ownerFiles(),
    memory: await world.memory(),
  }
}

export async function soakCycles(
  world: World,
  options: { readonly cycles: number; readonly swapEvery: number; readonly onCycle: (note: string) => void },
): Promise<CyclesResult> {
  const { cycles, swapEvery, onCycle } = options
  const { segmentDir, model: name } = world.target
  const cycle = async () => {
    const model = await attach(name, { segmentDir })
    world.expectCurrent(await valuesOf(model, world.target))
    await model.close()
  }
  for (let i = 0; i < WARM_UP_CYCLES; i++) await cycle()
  const before = await heldNow(world)
  let swaps = 0
  for (let i = 1; i <= cycles; i++) {
    await cycle()
    if (i % swapEvery === 0) {
      await world.swap()
      swaps++
    }
    onCycle(`cycle ${i}`)
  }
  // The generation that was measured before.
  if (swaps % 2 === 1) {
    await world.swap()
    swaps++
  }
  return { cycles, swaps, before, after: await heldNow(world) }
}

export function cyclesChecks({ before, after }: CyclesResult): Check[] {
  const same = (claim: string, of: (held: Held) => number): Check => ({
    ...{ claim, bar: `${of(before)}, as before`, got: String(of(after)), isMet: of(after) <= of(before) },
  })
  return [
    same('open files of the process that attaches', (held) => held.ownFiles),
    same('segments that it maps', (held) => held.ownSegments),
    same('open files of the owner and its workers', (held) => held.ownerFiles),
    same('files in shared memory', (held) => held.memory.files),
    same('bytes in shared memory', (held) => held.memory.bytes),
  ]
}
