// A Fastify app with the routes of a model under /ml. PORT=3000 node fastify.mjs
import fastify from 'fastify'
import { attach } from 'onecopy'

const model = await attach('logp', { onSwap: 'follow' })
model.on('swapped', ({ version }) => app.log.info({ version }, 'the model was replaced'))

const app = fastify({ logger: { level: 'warn' } })
await app.register(model.fastify(), { prefix: '/ml' })
app.post('/predict', async (request) => {
  const fingerprint = new Float32Array(2048)
  for (const bit of request.body.bits) fingerprint[bit] = 1
  const { logp } = await model.run({ fingerprint })
  return { logp: logp.data[0] }
})
app.addHook('onClose', () => model.close())
process.once('SIGTERM', () => app.close())
await app.listen({ port: Number(process.env.PORT ?? 3000) })
