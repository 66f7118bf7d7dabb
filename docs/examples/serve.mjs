// The server of `onecopy serve` from a script. PORT=8080 node serve.mjs [models]
import { serve } from 'onecopy'

const [models] = process.argv.slice(2)
const server = await serve({
  ...(models === undefined ? {} : { models }),
  port: Number(process.env.PORT ?? 8080),
  adminPort: 0,
  workers: 2,
  drainTimeout: '10s',
  logLevel: 'warn',
})
console.log(`inference on ${server.port}, metrics on ${server.adminPort}`)
process.once('SIGHUP', () => server.restart())
process.once('SIGTERM', () => server.close())
