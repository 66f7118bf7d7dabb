#!/usr/bin/env node
/** The `onecopy` command: picks the command, and the role of this process in it. */
import cluster from 'node:cluster'
import { createRequire } from 'node:module'
import { loadConfig, serveHelp } from '../src/config/load.js'
import { OnecopyError } from '../src/errors.js'
import { runPrimary } from './primary.js'
import { runTune, TUNE_HELP } from './tune.js'
import { runWorker } from './worker.js'

const EXIT_USAGE = 2

const USAGE = `Usage: onecopy COMMAND [options]

Commands:
  serve      Serve a model repository over HTTP (onecopy serve --help)
  tune       Measure which workers and threads suit a model here (onecopy tune --help)

Options:
  --version  Print the version
  --help     Print this text`

function packageVersion(): string {
  const require = createRequire(import.meta.url)
  return (require('../../package.json') as { version: string }).version
}

const COMMANDS: Record<
  string,
  { help(): string; run(argv: readonly string[]): Promise<number> } | undefined
> = {
  serve: { help: serveHelp, run: (argv) => runPrimary(loadConfig(argv), packageVersion()) },
  tune: { help: () => TUNE_HELP, run: runTune },
}

async function main(argv: readonly string[]): Promise<number> {
  const [command, ...rest] = argv
  if (command === '--version') {
    process.stdout.write(`${packageVersion()}\n`)
    return 0
  }
  if (command === undefined || command === '--help' || command === '-h') {
    process.stdout.write(`${USAGE}\n`)
    return command === undefined ? EXIT_USAGE : 0
  }
  const chosen = COMMANDS[command]
  if (chosen === undefined) {
    process.stderr.write(`onecopy: unknown command ${JSON.stringify(command)}\n\n${USAGE}\n`)
    return EXIT_USAGE
  }
  if (rest.includes('--help') || rest.includes('-h')) {
    process.stdout.write(`${chosen.help()}\n`)
    return 0
  }
  try {
    return await chosen.run(rest)
  } catch (thrown) {
    if (!(thrown instanceof OnecopyError)) throw thrown
    process.stderr.write(`onecopy: ${thrown.code}: ${thrown.message}\n`)
    return EXIT_USAGE
  }
}

if (cluster.isWorker) runWorker()
else process.exit(await main(process.argv.slice(2)))
