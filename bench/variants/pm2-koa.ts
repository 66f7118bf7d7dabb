/**
 * The same server under pm2, which forks it in cluster mode and replaces instances that die: `pm2-runtime start
 * pm2-koa.js --instances N`. Its settings are in the environment, because pm2 keeps arguments of its own in an ES
 * module's argv; the port is chosen by whoever starts it, because all instances share one.
 */
import { createServer } from 'node:http'
import { ownCopyApp } from './koa-app.js'

const { BENCH_MODELS = '', BENCH_PORT = '' } = process.env
const server = createServer(await ownCopyApp(BENCH_MODELS))
server.listen(Number(BENCH_PORT), '127.0.0.1')
