#!/usr/bin/env node
import cluster from 'node:cluster'
import { OnecopyError } from '../src/errors.js'
/** The `onecopy` command: selects the subcommand and the role of this process. */
import { packageVersion } from '../src/installation.js'
import type { CommandName } from './commands/definitions.js'
import { EXIT } from './exit-codes.js'

/** Imported lazily: workers run this file too and do not need the commands. */
const RUN: Record<Exclude<CommandName, 'help'>, (argv: readonly string[]) => Promise<number>> = {
  serve: async (argv) => {
    const [{ loadConfig }, { runPrimary }] = await Promise.all([
      import('../src/config/load.js'),
      import('./run-primary.js'),
    ])
    return await runPrimary(loadConfig(argv), packageVersion())
  },
  ersilia: async (argv) => await (await import('./commands/ersilia.js')).runErsilia(argv, packageVersion()),
  load: async (argv) => await (await import('./commands/load.js')).runLoad(argv, packageVersion()),
  run: async (argv) => await (await import('./commands/run.js')).runRun(argv),
  inspect: async (argv) => await (await import('./commands/inspect.js')).runInspect(argv),
  init: async (argv) => await (await import('./commands/init.js')).runInit(argv),
  tune: async (argv) => await (await import('./commands/tune.js')).runTune(argv),
  key: async (argv) => await (await import('./commands/key.js')).runKey(argv),
  segments: async (argv) => await (await import('./commands/segments.js')).runSegments(argv),
  python: async (argv) => (await import('./commands/python.js')).runPython(argv),
  completion: async (argv) => (await import('./commands/completion.js')).runCompletion(argv),
}

async function unknownCommand(word: string): Promise<number> {
  const [{ didYouMean }, { overview }, { COMMAND_NAMES }] = await Promise.all([
    import('../src/config/suggest-word.js'),
    import('./commands/help.js'),
    import('./commands/definitions.js'),
  ])
  const hint = didYouMean(word, COMMAND_NAMES)
  process.stderr.write(`onecopy: unknown command ${JSON.stringify(word)}${hint}\n\n${overview()}\n`)
  return EXIT.usage
}

/** Shows the help of a command, or the overview if none is named. */
async function showHelp(name: CommandName | undefined): Promise<number> {
  const { helpOf, overview } = await import('./commands/help.js')
  process.stdout.write(`${name === undefined ? overview() : helpOf(name)}\n`)
  return EXIT.ok
}

async function main(argv: readonly string[]): Promise<number> {
  const [word, ...rest] = argv
  const { isCommandName } = await import('./commands/definitions.js')
  if (word === '--version') {
    process.stdout.write(`${packageVersion()}\n`)
    return EXIT.ok
  }
  if (word === undefined) {
    await showHelp(undefined)
    return EXIT.usage
  }
  if (word === '--help' || word === '-h') return await showHelp(undefined)
  if (!isCommandName(word)) return await unknownCommand(word)
  const [topic] = rest
  if (word === 'help') {
    if (topic !== undefined && !isCommandName(topic)) return await unknownCommand(topic)
    return await showHelp(topic)
  }
  if (rest.includes('--help') || rest.includes('-h')) return await showHelp(word)
  try {
    return await RUN[word](rest)
  } catch (thrown) {
    if (!(thrown instanceof OnecopyError)) throw thrown
    process.stderr.write(`onecopy: ${thrown.code}: ${thrown.message}\n`)
    return EXIT.usage
  }
}

if (cluster.isWorker) {
  const { Engine } = await import('../src/engine/engine.js')
  // The inference thread starts while this thread loads the rest of the worker.
  const engine = new Engine({ preloadsRuntime: true })
  const { runWorker } = await import('./worker.js')
  runWorker(engine)
} else process.exit(await main(process.argv.slice(2)))
