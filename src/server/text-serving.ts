/** Text inference on a model with a tokenizer, served as its config defines. */
import type { ServingConfig } from '../config/config.js'
import type { Engine } from '../engine/engine.js'
import type { ServedModel, Submit } from '../inference/service.js'
import type { Log } from '../log.js'
import type { ServedModelConfig } from '../repository/config.js'
import type { SegmentHeader } from '../segment/layout.js'
import { TextModel } from '../text/text-model.js'
import type { ServedModels } from './served-models.js'
import { batchingPolicy } from './serving-policy.js'

interface TextServingOptions {
  /** Key of the loaded generation. */
  readonly key: string
  readonly config: ServedModelConfig
  readonly header: SegmentHeader
  readonly serving: ServingConfig
  readonly engine: Engine
  readonly submit: Submit
  readonly log: Log
  /** Contains the generation once it is active. */
  readonly models: Pick<ServedModels, 'byKey'>
}

/**
 * Null if the model has no tokenizer.
 * @throws OnecopyError as TextModel.open.
 */
export async function openText(options: TextServingOptions): Promise<TextModel | null> {
  const { key, config, header, serving, engine, submit, models, log } = options
  if (config.text === null) return null
  const { isBatchable, maxBatchSize, queue } = batchingPolicy(header, config, serving)
  const text = await TextModel.open({
    description: config.text,
    model: header,
    isBatchable,
    limits: { maxRows: maxBatchSize, maxTokens: serving.maxBatchTokens, ...queue },
    run: async (job) => {
      const { outputs, times } = await submit({
        ...job,
        model: models.byKey(key) as ServedModel,
        measuresCpu: true,
        priority: 0,
        timeoutMs: null,
      })
      // CPU time, so that other processes on the machine do not distort the learnt sizes.
      return { outputs, computeNs: Math.min(times.inferNs, times.cpuNs ?? times.inferNs) }
    },
    tryOut: async ({ inputs, outputNames }) =>
      await engine.run(key, inputs, outputNames, { isProving: true }),
  })
  if (text.paddingProblem !== null)
    log.warn(
      { model: key, reason: text.paddingProblem },
      'padding changes the results of the model: only texts of equal length are batched',
    )
  return text
}
