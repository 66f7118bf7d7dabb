import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import test, { type ExecutionContext } from 'ava'
import express from 'express'
import fastify from 'fastify'
import Koa from 'koa'
import { attach } from '../../cluster/index.js'
import { addModel, writeModel } from '../helpers/onnx-builder.js'
import { startServer, stopCleanly, temporaryFolder } from '../helpers/server.js'
import { inferOutputs } from '../helpers/v2-client.js'

async function listening(t: ExecutionContext, listener: RequestListener): Promise<string> {
  const server = createServer(listener)
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

const POINT = {
  name: 'x',
  datatype: 'FP32',
  shape: [1, 2],
  bytes: new Uint8Array(Float32Array.of(10, 20).buffer),
}

async function answers(url: string, model: string, encoding: 'json' | 'binary'): Promise<number[]> {
  const [output] = await inferOutputs({ url, model, inputs: [POINT], encoding })
  return [...new Float32Array(Uint8Array.from(output?.bytes ?? []).buffer)]
}

async function post(url: string, body: string, headers = {}): Promise<[number, string]> {
  const response = await fetch(url, { method: 'POST', body, headers })
  return [response.status, await response.text()]
}

test.serial('Koa, Express and Fastify answer the V2 routes, and everything else stays theirs', async (t) => {
  const models = temporaryFolder(t)
  writeModel(models, 'one', addModel([1, 1]))
  writeModel(models, 'two', addModel([2, 2]))
  const { server } = await startServer(t, { models, args: ['--workers', '1'] })
  const { segmentDir } = server
  const [one, two] = await Promise.all([attach('one', { segmentDir }), attach('two', { segmentDir })])

  const koa = new Koa()
  koa.use(one.koa({ beside: [two] }))
  koa.use((ctx) => {
    ctx.body = `theirs ${ctx.path}`
  })

  const app = express()
  app.use('/ml', one.express())
  app.use('/ml', two.express())
  app.use(express.json())
  app.use('/late', one.express())
  app.use((request, response) => {
    response.send(`theirs ${request.path}`)
  })

  const instance = fastify()
  await instance.register(one.fastify({ beside: [two] }), { prefix: '/ml' })
  instance.post('/echo', async (request) => `theirs ${JSON.stringify(request.body)}`)
  await instance.listen({ port: 0, host: '127.0.0.1' })
  t.teardown(() => instance.close())

  const places = {
    koa: await listening(t, koa.callback()),
    express: `${await listening(t, app)}/ml`,
    fastify: `http://127.0.0.1:${(instance.server.address() as AddressInfo).port}/ml`,
  }
  for (const [name, url] of Object.entries(places)) {
    for (const encoding of ['json', 'binary'] as const) {
      t.deepEqual(await answers(url, 'one', encoding), [11, 21], `${name} ${encoding}`)
      t.deepEqual(await answers(url, 'two', encoding), [12, 22], `${name} ${encoding}`)
    }
    t.is((await fetch(`${url}/v2/health/ready`)).status, 200, name)
    const ready = await fetch(`${url}/v2/models/one/versions/1/ready`)
    t.is(ready.status, 200, name)
    const metadata = (await (await fetch(`${url}/v2/models/one`)).json()) as { versions: string[] }
    t.deepEqual(metadata.versions, ['1'], name)
    const stats = await (await fetch(`${url}/v2/models/one/stats`)).text()
    t.regex(stats, /"inference_count":2/, name)
    const [status, text] = await post(`${url}/v2/models/one/infer`, '{"inputs":[]}')
    t.is(status, 400, name)
    t.regex(text, /missing/, name)
    t.is((await post(`${url}/v2/models/one/infer`, 'x'.repeat(2 ** 20)))[0], 400, name)
    const [otherStatus, other] = await post(`${url}/v2/models/three/infer`, '{}')
    t.true(other.startsWith('theirs') || otherStatus === 404, `${name}: ${otherStatus} ${other}`)
  }
  const [, theirs] = await post(`${places.koa}/v3`, '')
  t.is(theirs, 'theirs /v3')
  const echo = await post(places.fastify.replace('/ml', '/echo'), '{"a":1}', {
    'Content-Type': 'application/json',
  })
  t.deepEqual(echo, [200, 'theirs {"a":1}'])
  const late = await post(`${places.express.replace('/ml', '/late')}/v2/models/one/infer`, '{"inputs":[]}', {
    'Content-Type': 'application/json',
  })
  t.is(late[0], 500)
  t.regex(late[1], /in front of body parsers/)
  t.throws(() => one.koa({ prefix: 'ml' }), { code: 'CONFIG_INVALID' })

  await one.close()
  t.is((await post(`${places.koa}/v2/models/one/infer`, '{}'))[1], 'theirs /v2/models/one/infer')
  t.deepEqual(await answers(places.koa, 'two', 'json'), [12, 22])
  t.is((await fetch(`${places.koa}/v2/health/ready`)).status, 503)
  await two.close()
  await stopCleanly(t, server)
})
