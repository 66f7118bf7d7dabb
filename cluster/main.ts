#!/usr/bin/env node
/** The `onecopy` command: picks the command, and the role of this process in it. */
import cluster from 'node:cluster'
import { createRequire } from 'node:module'
import { OnecopyError } from '../src/errors.js'

const EXIT_USAGE = 2

const USAGE = `Usage: onecopy COMMAND [options]

Commands:
  serve      Serve a model repository over HTTP (onecopy serve --help)
  ersilia    Serve an Ersilia model bundle: POST /run, from SMILES (onecopy ersilia --help)
  load       Keep a model or a bundle in memory for onecopy run (onecopy load --help)
  run        Predict a file of molecules, with a model that is in memory (onecopy run --help)
  inspect    Tell what workers will share of a model, and what each costs (onecopy inspect --help)
  init       Write a config for a model, made from its shapes (onecopy init --help)
  tune       Measure which workers and threads suit a model here (onecopy tune --help)
  key        Make an API key (onecopy key --help)
  segments   List the segments in shared memory, and sweep what dead servers left (onecopy segments --help)

Options:
  --version  Print the version
  --help     Print this text`

function packageVersion(): string {
  const require = createRequire(import.meta.url)
  return (require('../../package.json') as { version: string }).version
}

interface Command {
  readonly help: string
  run(argv: readonly string[]): Promise<number>
}

/** Loaded when they are needed: a worker is this file too, and holds nothing of the commands. */
const COMMANDS: Record<string, (() => Promise<Command>) | undefined> = {
  serve: async () => {
    const [{ loadConfig, serveHelp }, { runPrimary }] = await Promise.all([
      import('../src/config/load.js'),
      import('./primary.js'),
    ])
    return { help: serveHelp(), run: (argv) => runPrimary(loadConfig(argv), packageVersion()) }
  },
  ersilia: async () => {
    const { runErsilia, ERSILIA_HELP } = await import('./commands/ersilia.js')
    return { help: ERSILIA_HELP, run: (argv) => runErsilia(argv, packageVersion()) }
  },
  load: async () => {
    const { runLoad, LOAD_HELP } = await import('./commands/load.js')
    return { help: LOAD_HELP, run: (argv) => runLoad(argv, packageVersion()) }
  },
  run: async () => {
    const { runRun, RUN_HELP } = await import('./commands/run.js')
    return { help: RUN_HELP, run: runRun }
  },
  inspect: async () => {
    const { runInspect, INSPECT_HELP } = await import('./commands/inspect.js')
    return { help: INSPECT_HELP, run: runInspect }
  },
  init: async () => {
    const { runInit, INIT_HELP } = await import('./commands/init.js')
    return { help: INIT_HELP, run: runInit }
  },
  tune: async () => {
    const { runTune, TUNE_HELP } = await import('./commands/tune.js')
    return { help: TUNE_HELP, run: runTune }
  },
  key: async () => {
    const { runKey, KEY_HELP } = await import('./commands/key.js')
    return { help: KEY_HELP, run: runKey }
  },
  segments: async () => {
    const { runSegments, SEGMENTS_HELP } = await import('./commands/segments.js')
    return { help: SEGMENTS_HELP, run: runSegments }
  },
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
  const load = COMMANDS[command]
  if (load === undefined) {
    process.stderr.write(`onecopy: unknown command ${JSON.stringify(command)}\n\n${USAGE}\n`)
    return EXIT_USAGE
  }
  const { help, run } = await load()
  if (rest.includes('--help') || rest.includes('-h')) {
    process.stdout.write(`${help}\n`)
    return 0
  }
  try {
    return await run(rest)
  } catch (thrown) {
    if (!(thrown instanceof OnecopyError)) throw thrown
    process.stderr.write(`onecopy: ${thrown.code}: ${thrown.message}\n`)
    return EXIT_USAGE
  }
}

if (cluster.isWorker) {
  const { runWorker } = await import('./worker.js')
  runWorker()
} else process.exit(await main(process.argv.slice(2)))
