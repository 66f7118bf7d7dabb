/** `onecopy ersilia serve BUNDLE`: the ordinary server, for one bundle. */
import { loadConfig } from '../../src/config/load.js'
import { runPrimary } from '../primary.js'
import { usageError } from './arguments.js'

export const ERSILIA_HELP = `Usage: onecopy ersilia serve BUNDLE [options]

Serves an Ersilia model bundle over HTTP, with Ersilia's API: POST /run and the routes beside it. With a
model/framework/serve.json its ONNX checkpoint is loaded once, for all workers and requests, and the bundle must
reproduce its own examples before the server is ready. Without one its run.sh is started for every request.

BUNDLE is a folder: the bundle's, or its model/framework. Every option of onecopy serve applies
(onecopy serve --help), but --models and those that change models while it serves; of use here:

Options:
  --port N           Port to serve on [8080]
  --workers N        Worker processes
  --redis-url URL    Redis that keeps results for requests with fetch_cache
  --socket PATH      Unix socket to serve on as well [one beside the segment, for onecopy run]`

/** Runs `onecopy ersilia`; resolves with the exit code. */
export async function runErsilia(argv: readonly string[], version: string): Promise<number> {
  const [action, bundle, ...options] = argv
  if (action !== 'serve')
    throw usageError(`expected ersilia serve, got ${JSON.stringify(action ?? '')}`, 'ersilia')
  if (bundle === undefined || bundle.startsWith('-'))
    throw usageError('expected a bundle right after ersilia serve', 'ersilia')
  return await runPrimary(loadConfig(['--bundle', bundle, ...options]), version)
}
