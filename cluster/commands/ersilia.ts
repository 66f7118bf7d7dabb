/** `onecopy ersilia serve BUNDLE`: serves a single Ersilia bundle. */
import { configOf, readServeFlags } from '../../src/config/load.js'
import { runPrimary } from '../run-primary.js'
import { usageError } from './arguments.js'

/** Runs `onecopy ersilia`; resolves with the exit code. */
export async function runErsilia(argv: readonly string[], version: string): Promise<number> {
  const { values, positionals } = readServeFlags(argv, 'ersilia')
  const [action, bundle, ...others] = positionals
  if (action !== 'serve')
    throw usageError(`expected ersilia serve, got ${JSON.stringify(action ?? '')}`, 'ersilia')
  if (bundle === undefined || others.length > 0)
    throw usageError(`expected one bundle after ersilia serve, got ${positionals.length - 1}`, 'ersilia')
  return await runPrimary(configOf({ ...values, bundle }), version)
}
