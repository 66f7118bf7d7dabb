/** Koa with the inference route of the benches, independent of how the model runs. */
import { readdirSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import { join } from 'node:path'
import Router from '@koa/router'
import Koa from 'koa'
import { decodeRequest, encodeAnswer, type PlainTensors, readBody } from './v2-codec.js'

export interface ModelFile {
  readonly name: string
  readonly version: string
  readonly path: string
}

export interface ServedModel {
  readonly version: string
  run(feeds: PlainTensors, outputNames: readonly string[] | undefined): Promise<PlainTensors>
}

/** Every version in a repository, oldest first. */
export function modelFiles(modelsDir: string): ModelFile[] {
  return readdirSync(modelsDir).flatMap((name) => {
    const versions = readdirSync(join(modelsDir, name)).filter((entry) => /^\d+$/.test(entry))
    return versions
      .sort((a, b) => Number(a) - Number(b))
      .map((version) => ({ name, version, path: join(modelsDir, name, version, 'model.onnx') }))
  })
}

/** Every version by `NAME@VERSION`, and the newest of each model by its name. */
export async function serveEach(
  modelsDir: string,
  open: (file: ModelFile) => Promise<ServedModel>,
): Promise<Map<string, ServedModel>> {
  const models = new Map<string, ServedModel>()
  for (const file of modelFiles(modelsDir)) {
    const model = await open(file)
    models.set(`${file.name}@${file.version}`, model)
    models.set(file.name, model)
  }
  return models
}

export function inferApp(models: ReadonlyMap<string, ServedModel>): RequestListener {
  const router = new Router()
  router.post(['/v2/models/:name/infer', '/v2/models/:name/versions/:version/infer'], async (ctx) => {
    const { name, version } = ctx.params as { name: string; version?: string }
    const model = models.get(version === undefined ? name : `${name}@${version}`)
    if (model === undefined) {
      ctx.status = 404
      return
    }
    const request = decodeRequest(await readBody(ctx.req), ctx.get('Inference-Header-Content-Length'))
    const results = await model.run(request.feeds, request.outputNames)
    const { headers, body } = encodeAnswer({ modelName: name, version: model.version, request, results })
    ctx.set(headers)
    ctx.body = body
  })
  router.get('/v2/health/ready', (ctx) => {
    ctx.body = {}
  })
  const app = new Koa()
  app.use(router.routes())
  app.use(router.allowedMethods())
  return app.callback()
}

/** The usual approach: a session in this process, created from the model file at startup. */
export async function ownCopyApp(modelsDir: string): Promise<RequestListener> {
  // Imported lazily: variants that run the model elsewhere do not need the runtime in this process.
  const { openSession, runSession } = await import('./session.js')
  const models = await serveEach(modelsDir, async ({ path, version }) => {
    const session = await openSession(path)
    return { version, run: (feeds, outputNames) => runSession(session, feeds, outputNames) }
  })
  return inferApp(models)
}
