/**
 * The same server under pm2, which forks it in cluster mode and replaces dead instances: `pm2-runtime start
 * pm2-koa.js --instances N`. Settings come from the environment, because pm2 adds its own arguments to the
 * argv of an ES module. The caller chooses the port, because all instances share it.
 */
import { createServer } from 'node:http'
import { ownCopyApp } from './koa-app.js'

const { BENCH_MODELS = '', BENCH_PORT = '' } = process.env
const server = createServer(await ownCopyApp(BENCH_MODELS))
server.listen(Number(BENCH_PORT), '127.0.0.1')
