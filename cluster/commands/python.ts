/** `onecopy python`: prints the path of the Python module. */
import { join } from 'node:path'
import { PACKAGE_ROOT } from '../../src/installation.js'
import { EXIT } from '../exit-codes.js'
import { commandLine, usageError } from './arguments.js'

export const PYTHON_MODULE = join(PACKAGE_ROOT, 'src', 'python', 'onecopy.py')

/** Runs `onecopy python`; returns the exit code. */
export function runPython(argv: readonly string[]): number {
  const { positionals } = commandLine('python', argv)
  if (positionals.length > 0) throw usageError(`expected nothing, got ${positionals[0]}`, 'python')
  process.stdout.write(`${PYTHON_MODULE}\n`)
  return EXIT.ok
}
