/**
 * A predictor in its own process, for `onecopy run`. It uses the segment of a running server, or loads the
 * checkpoint for a single run.
 */
import { readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { separateDefaults } from '../compile/defaults.js'
import { checkSelf } from '../compile/self-check.js'
import { declareOutputs } from '../compile/undeclared.js'
import { Engine, type LoadableModel } from '../engine/engine.js'
import { OnecopyError } from '../errors.js'
import { parseModel } from '../onnx/graph.js'
import { readInterface } from '../repository/interface.js'
import { RUNTIME_ENVIRONMENT } from '../runtime/environment.js'
import { attachWhole } from '../segment/attach.js'
import type { SelfCheck } from '../segment/layout.js'
import type { SegmentListing } from '../segment/listing.js'
import { requiredOf } from '../tensor.js'
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

export class LocalPredictor implements Predictor {
  readonly #engine: Engine
  readonly #predictor: NativePredictor

  /** Releases what the model was loaded from. */
  readonly #release: () => Promise<void>

  private constructor(engine: Engine, predictor: NativePredictor, release: () => Promise<void>) {
    this.#engine = engine
    this.#predictor = predictor
    this.#release = release
  }

  /**
   * Uses the segment of a running server: the weights are mapped, not read.
   * @throws OnecopyError SEGMENT_INVALID, SELF_CHECK_FAILED, and of NativePredictor.open.
   */
  static async attached(bundle: Bundle, { path }: SegmentListing): Promise<LocalPredictor> {
    const { header, graph, folder, close } = await attachWhole(path)
    try {
      return await LocalPredictor.#open(
        bundle,
        { header, folder, ...separateDefaults(graph, header.inputs) },
        { selfCheck: header.selfCheck, close },
      )
    } catch (thrown) {
      await close()
      throw thrown
    }
  }

  /**
   * Uses the checkpoint. @throws OnecopyError MODEL_INVALID, MODEL_UNSUPPORTED, and of NativePredictor.open.
   */
  static async cold(bundle: Bundle): Promise<LocalPredictor> {
    if (bundle.checkpoint === null)
      throw new OnecopyError('BUNDLE_INVALID', `bundle ${bundle.root} has no serve.json`)
    return await LocalPredictor.#open(bundle, await readCheckpoint(bundle.checkpoint), {
      selfCheck: null,
      close: async () => {},
    })
  }

  static async #open(
    bundle: Bundle,
    model: LoadableModel,
    { selfCheck, close }: { readonly selfCheck: SelfCheck | null; readonly close: () => Promise<void> },
  ): Promise<LocalPredictor> {
    const { manifest } = bundle
    if (manifest === null) throw new OnecopyError('BUNDLE_INVALID', `bundle ${bundle.root} has no serve.json`)
    Object.assign(process.env, RUNTIME_ENVIRONMENT)
    const engine = new Engine()
    const { outputs } = model.header
    const inputs = requiredOf(model.header.inputs)
    const run: RunModel = async (tensors, names) => (await engine.run(KEY, tensors, names)).outputs
    try {
      await engine.load(KEY, model, { threads: 1 })
      if (selfCheck !== null)
        await checkSelf(selfCheck, {
          inputs,
          outputs,
          run: async (tensors, names) => (await engine.run(KEY, tensors, names)).outputs,
        })
      return new LocalPredictor(
        engine,
        await NativePredictor.open({ bundle, manifest, inputs, outputs, run }),
        close,
      )
    } catch (thrown) {
      await engine.close()
      throw thrown
    }
  }

  async predict(inputs: readonly unknown[], options?: PredictOptions) {
    return await this.#predictor.predict(inputs, options)
  }

  async close(): Promise<void> {
    await this.#predictor.close()
    await this.#engine.close()
    await this.#release()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}
