/** The list of models, their metadata, configuration and readiness. */
import type Router from '@koa/router'
import type { Context } from 'koa'
import type { ModelList, ModelMetadata, ModelReadiness } from '../../api/schemas.js'
import { OnecopyError, outOfServiceError } from '../../errors.js'
import { describeTensor, unknownModel, VERSION_PATTERN } from '../../inference/model-facts.js'
import type { ServedModel, VersionOutOfService } from '../../inference/service.js'
import type { HttpContext } from '../context.js'
import type { RequestState } from '../request-state.js'

type Directory = Pick<HttpContext, 'models'>

/** The model version in the path, or the newest, if it is out of service. */
function outOfServiceOf(ctx: Context, { models }: Directory): VersionOutOfService | null {
  const { model: name = '', version } = ctx.params as { model?: string; version?: string }
  return models.outOfService(name, version)
}

function refuseOutOfService(ctx: Context, version: VersionOutOfService): never {
  ;(ctx.state as RequestState).model = version
  throw outOfServiceError(version, version.state)
}

/**
 * The model version in the path, or the newest, for inference.
 * @throws OnecopyError MODEL_NOT_FOUND, MODEL_OUT_OF_SERVICE.
 */
export function inServiceModelOf(ctx: Context, context: Directory): ServedModel {
  const out = outOfServiceOf(ctx, context)
  return out === null ? modelOf(ctx, context) : refuseOutOfService(ctx, out)
}

/**
 * The model version in the path, or the newest; a version that is out of service must be loaded.
 * @throws OnecopyError MODEL_NOT_FOUND, MODEL_OUT_OF_SERVICE.
 */
export function modelOf(ctx: Context, context: Directory): ServedModel {
  const { models } = context
  const { model: name = '', version } = ctx.params as { model?: string; version?: string }
  const isVersion = version === undefined || VERSION_PATTERN.test(version)
  const model = isVersion ? models.find(name, version) : null
  if (model === null) {
    const out = outOfServiceOf(ctx, context)
    if (out !== null) refuseOutOfService(ctx, out)
    throw unknownModel(models, name, version)
  }
  ;(ctx.state as RequestState).model = model
  return model
}

/** Registers `handler` with and without a version in the path. */
export function onModel(
  router: Router,
  method: 'get' | 'post',
  suffix: string,
  handler: (ctx: Context) => void | Promise<void>,
): void {
  for (const version of ['', '/versions/:version'])
    router[method](`/v2/models/:model${version}${suffix}`, handler)
}

export function modelRoutes(router: Router, context: Pick<HttpContext, 'models' | 'isDraining'>): void {
  router.get('/v2/models', (ctx) => {
    ctx.body = { models: [...context.models.names()] } satisfies ModelList
  })
  onModel(router, 'get', '', (ctx) => {
    const model = modelOf(ctx, context)
    ctx.body = {
      name: model.name,
      versions: [...context.models.versions(model.name)],
      platform: 'onnx_onnxv1',
      inputs: model.inputs.map(describeTensor),
      outputs: model.outputs.map(describeTensor),
    } satisfies ModelMetadata
  })
  onModel(router, 'get', '/config', (ctx) => {
    ctx.body = modelOf(ctx, context).configuration
  })
  onModel(router, 'get', '/ready', (ctx) => {
    const out = outOfServiceOf(ctx, context)
    const { name } = out ?? modelOf(ctx, context)
    const ending = `model ${name} is not ready: the server is shutting down`
    const error =
      out !== null
        ? outOfServiceError(out, out.state)
        : context.isDraining()
          ? new OnecopyError('MODEL_NOT_READY', ending, { retryAfterSeconds: 1 })
          : null
    ctx.status = error === null ? 200 : 503
    if (error !== null) ctx.set(error.headers)
    const answer: ModelReadiness =
      error === null ? { name, ready: true } : { name, ready: false, error: error.message }
    ctx.body = answer
  })
}
