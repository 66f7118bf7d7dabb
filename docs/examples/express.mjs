// An Express app with the routes of a model under /ml. PORT=3000 node express.mjs
import express from 'express'
import { attach } from 'onecopy'

const model = await attach('logp')
const app = express()
// In front of body parsers: the model's routes read their own bodies.
app.use('/ml', model.express())
app.use(express.json())
app.post('/predict', async (request, response) => {
  const fingerprint = new Float32Array(2048)
  for (const bit of request.body.bits) fingerprint[bit] = 1
  const { logp } = await model.run({ fingerprint })
  response.json({ logp: logp.data[0] })
})
const server = app.listen(Number(process.env.PORT ?? 3000))
process.once('SIGTERM', () => {
  server.close(() => model.close())
  server.closeIdleConnections()
})
