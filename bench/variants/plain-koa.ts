/**
 * The baseline: the server that a Node.js team writes in an afternoon, with node:cluster, Koa, one session
 * per worker, and the Open Inference Protocol in JSON and binary. It is meant to be good: all useful settings
 * are set.
 */
import { runFleet } from './fleet.js'
import { ownCopyApp } from './koa-app.js'

await runFleet(({ modelsDir }) => ownCopyApp(modelsDir))
