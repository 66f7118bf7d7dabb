/**
 * A predictor in its own process, for `onecopy run`. It attaches to the model of a running server, or loads the
 * checkpoint for a single run.
 */
import { readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { declareOutputs } from '../compile/undeclared.js'
import { Engine, type LoadableModel } from '../engine/engine.js'
import { OnecopyError } from '../errors.js'
import { parseModel } from '../onnx/graph.js'
import { readInterface } from '../repository/interface.js'
import { RUNTIME_ENVIRONMENT } from '../runtime/environment.js'
import { requiredOf, type Tensor, type TensorSpec } from '../tensor.js'
import type { Bundle } from './bundle.js'
import { NativePredictor, type RunModel } from './native-predictor.js'
import type { PredictOptions, Predictor } from './predictor.js'

const KEY = 'run'

/** Loads the checkpoint without optimisation: for one run nothing is compiled or cached. */
async function readCheckpoint(path: string): Promise<LoadableModel> {
  const graph = new Uint8Array(await readFile(path))
  const model = parseModel(graph)
  Object.assign(process.env, RUNTIME_ENVIRONMENT)
  await declareOutputs(model, dirname(path))
  const { inputs, outputs } = readInterface(model.graph)
  return {
    graph,
    folder: dirname(path),
    header: { form: 'original', externalDataFolder: dirname(path), inputs, outputs },
  }
}

/** A model that another process keeps, attached to; `close` gives it up. */
export interface KeptModel {
  readonly inputs: readonly TensorSpec[]
  readonly outputs: readonly TensorSpec[]
  runTensors(run: {
    readonly inputs: readonly Tensor[]
    readonly outputNames: readonly string[]
  }): Promise<{ readonly outputs: readonly Tensor[] }>
  close(): Promise<void>
}

export class LocalPredictor implements Predictor {
  readonly #predictor: NativePredictor

  /** Releases what the model was loaded from. */
  readonly #release: () => Promise<void>

  private constructor(predictor: NativePredictor, release: () => Promise<void>) {
    this.#predictor = predictor
    this.#release = release
  }

  /** On what another process keeps: the weights are mapped, not read. Owned from here on. @throws OnecopyError of NativePredictor.open. */
  static async attached(bundle: Bundle, model: KeptModel): Promise<LocalPredictor> {
    return await LocalPredictor.#open(bundle, {
      ...{ inputs: model.inputs, outputs: model.outputs, close: () => model.close() },
      run: async (inputs, outputNames) => (await model.runTensors({ inputs, outputNames })).outputs,
    })
  }

  /**
   * Uses the checkpoint. @throws OnecopyError MODEL_INVALID, MODEL_UNSUPPORTED, and of NativePredictor.open.
   */
  static async cold(bundle: Bundle): Promise<LocalPredictor> {
    if (bundle.checkpoint === null)
      throw new OnecopyError('BUNDLE_INVALID', `bundle ${bundle.root} has no serve.json`)
    const model = await readCheckpoint(bundle.checkpoint)
    const engine = new Engine()
    const { inputs, outputs } = model.header
    return await LocalPredictor.#open(bundle, {
      ...{ inputs, outputs, close: () => engine.close() },
      prepare: () => engine.load(KEY, model, { threads: 1 }),
      run: async (tensors, names) => (await engine.run(KEY, tensors, names)).outputs,
    })
  }

  static async #open(
    bundle: Bundle,
    model: Pick<KeptModel, 'inputs' | 'outputs' | 'close'> & {
      readonly prepare?: () => Promise<void>
      readonly run: RunModel
    },
  ): Promise<LocalPredictor> {
    try {
      const { manifest } = bundle
      if (manifest === null)
        throw new OnecopyError('BUNDLE_INVALID', `bundle ${bundle.root} has no serve.json`)
      await model.prepare?.()
      const { outputs, run } = model
      const inputs = requiredOf(model.inputs)
      const predictor = await NativePredictor.open({ bundle, manifest, inputs, outputs, run })
      return new LocalPredictor(predictor, model.close)
    } catch (thrown) {
      await model.close()
      throw thrown
    }
  }

  async predict(inputs: readonly unknown[], options?: PredictOptions) {
    return await this.#predictor.predict(inputs, options)
  }

  async close(): Promise<void> {
    await this.#predictor.close()
    await this.#release()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}
