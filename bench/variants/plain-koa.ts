/**
 * The baseline: the server that a Node.js team writes in an afternoon. node:cluster, Koa, one session per
 * worker made from the model's path, the Open Inference Protocol in JSON and with binary tensors. It is
 * meant to be good: what can be had by a setting is set.
 */
import { runFleet } from './fleet.js'
import { ownCopyApp } from './koa-app.js'

await runFleet(({ modelsDir }) => ownCopyApp(modelsDir))
