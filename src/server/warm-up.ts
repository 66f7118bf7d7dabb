/**
 * The runs of a worker before a model serves: the self-check, then the configured samples or generated
 * inputs.
 */
import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { checkSelf } from '../compile/self-check.js'
import { ZERO_DIMENSIONS, zeroInputs } from '../compile/zero-inputs.js'
import { messageOf, OnecopyError } from '../errors.js'
import { decodeInferRequest, type ModelSpec } from '../protocol/v2/request.js'
import type { ServedModelConfig } from '../repository/config.js'
import type { SegmentHeader } from '../segment/layout.js'
import { requiredOf, type Tensor } from '../tensor.js'

const LIMITS = { jsonDepth: 64, maxTensors: 4096 }

type RunModel = (inputs: readonly Tensor[], outputNames: readonly string[]) => Promise<readonly Tensor[]>

interface WarmUpOptions {
  readonly warmUp: ServedModelConfig['warmUp']
  readonly model: ModelSpec
  readonly run: RunModel
}

/**
 * Runs the smallest generated inputs that the model accepts, repeatedly. Without any, the model stays cold.
 */
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
 * Warms up a loaded model as configured.
 * @throws OnecopyError CONFIG_INVALID if a sample cannot be read, and the errors of decodeInferRequest and of
 *   the run. They name the sample: it shows that the model is not the expected one.
 */
async function warmUpModel(options: WarmUpOptions): Promise<void> {
  const { warmUp, model, run } = options
  for (const { path, runs } of warmUp.samples) {
    try {
      const bytes = await readFile(path).catch((thrown) => {
        throw new OnecopyError('CONFIG_INVALID', `the sample cannot be read: ${messageOf(thrown)}`)
      })
      for (let i = 0; i < runs; i++) {
        // Inputs are transferred to the runtime, so every run needs its own.
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

/**
 * Runs a loaded model: the recorded self-check, then the warm-up.
 * @throws OnecopyError SELF_CHECK_FAILED, and the errors of the warm-up.
 */
export async function proveModel(options: {
  readonly model: { readonly name: string; readonly version: string; readonly config: ServedModelConfig }
  readonly header: SegmentHeader
  readonly run: RunModel
}): Promise<void> {
  const { model, header, run } = options
  const { name, version, config } = model
  const { selfCheck, inputs, outputs } = header
  if (selfCheck !== null) await checkSelf(selfCheck, { inputs: requiredOf(inputs), outputs, run })
  await warmUpModel({ warmUp: config.warmUp, model: { name, version, inputs, outputs }, run })
}
