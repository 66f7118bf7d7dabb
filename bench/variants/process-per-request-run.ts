/** Handles one request: `node process-per-request-run.js MODEL`, tensors on standard input and output. */
import { buffer } from 'node:stream/consumers'
import { deserialize, serialize } from 'node:v8'
import { openSession, runSession } from './session.js'
import type { PoolTask } from './thread-pool-worker.js'

const { feeds, outputNames } = deserialize(await buffer(process.stdin)) as PoolTask
const session = await openSession(process.argv[2] ?? '')
process.stdout.write(serialize(await runSession(session, feeds, outputNames)))
