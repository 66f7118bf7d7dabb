/** What a worker runs before a model answers: samples that its operator chose, or made-up inputs. */
import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { OnecopyError } from './errors.js'
import type { ServedModelConfig } from './model/config.js'
import { ZERO_DIMENSIONS, zeroInputs } from './model/zero-inputs.js'
import { decodeInferRequest, type ModelSpec } from './protocol/v2/request.js'
import { requiredOf, type Tensor } from './tensor.js'

const LIMITS = { jsonDepth: 64, maxTensors: 4096 }

type RunModel = (inputs: readonly Tensor[], outputNames: readonly string[]) => Promise<unknown>

export interface WarmUpOptions {
  readonly warmUp: ServedModelConfig['warmUp']
  readonly model: ModelSpec
  readonly run: RunModel
}

/** The smallest made-up inputs that the model takes, again and again; a model that takes none stays cold. */
async function runGenerated({ warmUp, model, run }: WarmUpOptions): Promise<void> {
  const outputNames = model.outputs.map(({ name }) => name)
  let runs = 0
  for (const dimension of ZERO_DIMENSIONS) {
    while (runs < warmUp.generatedRuns) {
      const inputs = zeroInputs(requiredOf(model.inputs), dimension)
      if (typeof inputs === 'string') return
      try {
        await run(inputs, outputNames)
      } catch (thrown) {
        if (!(thrown instanceof OnecopyError) || runs > 0) throw thrown
        break
      }
      runs++
    }
  }
}

/**
 * Warms a loaded model up as its config says.
 * @throws OnecopyError of decodeInferRequest and of the run, with the sample named: a sample that fails shows that
 *   the model is not what its operator thinks.
 */
export async function warmUpModel(options: WarmUpOptions): Promise<void> {
  const { warmUp, model, run } = options
  for (const { path, runs } of warmUp.samples) {
    const bytes = await readFile(path)
    try {
      for (let i = 0; i < runs; i++) {
        // Inputs are handed over to the runtime: every run has its own.
        const body = Uint8Array.from(bytes)
        const { inputs, outputs } = decodeInferRequest({ body, jsonBytes: null, model, limits: LIMITS })
        await run(
          inputs,
          outputs.map(({ name }) => name),
        )
      }
    } catch (thrown) {
      if (!(thrown instanceof OnecopyError)) throw thrown
      throw new OnecopyError(thrown.code, `warm-up with ${basename(path)}: ${thrown.message}`, {
        cause: thrown,
      })
    }
  }
  await runGenerated(options)
}
