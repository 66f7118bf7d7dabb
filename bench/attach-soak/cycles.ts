/** Repeatedly attaches, runs and closes in one process, with swaps in between. */
import { attach } from '../../cluster/index.js'
import { collectStartupGarbage } from '../../src/process/collect-garbage.js'
import type { FolderUse } from '../harness/footprint.js'
import { openFiles } from '../harness/footprint.js'
import type { Check } from '../harness/report.js'
import { valuesOf } from './commands.js'
import type { SoakServer } from './soak-server.js'

/** Enough to load libraries and fill pools. */
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

async function heldNow(server: SoakServer): Promise<Held> {
  await server.released()
  // Mappings last until their views are collected.
  await collectStartupGarbage()
  return {
    ownFiles: openFiles(process.pid),
    ownSegments: server.segmentsMappedBy(process.pid),
    ownerFiles: server.ownerFiles(),
    memory: await server.memory(),
  }
}

export async function soakCycles(
  server: SoakServer,
  options: { readonly cycles: number; readonly swapEvery: number; readonly onCycle: (note: string) => void },
): Promise<CyclesResult> {
  const { cycles, swapEvery, onCycle } = options
  const { segmentDir, model: name } = server.target
  const cycle = async () => {
    const model = await attach(name, { segmentDir })
    server.expectCurrent(await valuesOf(model, server.target))
    await model.close()
  }
  for (let i = 0; i < WARM_UP_CYCLES; i++) await cycle()
  const before = await heldNow(server)
  let swaps = 0
  for (let i = 1; i <= cycles; i++) {
    await cycle()
    if (i % swapEvery === 0) {
      await server.swap()
      swaps++
    }
    onCycle(`cycle ${i}`)
  }
  // Returns to the generation of the first measurement.
  if (swaps % 2 === 1) {
    await server.swap()
    swaps++
  }
  return { cycles, swaps, before, after: await heldNow(server) }
}

export function cyclesChecks({ before, after }: CyclesResult): Check[] {
  const same = (claim: string, of: (held: Held) => number): Check => ({
    ...{
      claim,
      bar: `${of(before)}, the initial value`,
      got: String(of(after)),
      isMet: of(after) <= of(before),
    },
  })
  return [
    same('open files of the attaching process', (held) => held.ownFiles),
    same('segments mapped by the attaching process', (held) => held.ownSegments),
    same('open files of the owner and its workers', (held) => held.ownerFiles),
    same('files in shared memory', (held) => held.memory.files),
    same('bytes in shared memory', (held) => held.memory.bytes),
  ]
}
