/** Python for tests: with the module of the package, and skipped by name where something is missing. */
import { spawnSync } from 'node:child_process'
import { dirname } from 'node:path'
import test, { type ExecutionContext, type Implementation } from 'ava'
import { runCommand } from '../helpers/server.js'
import { toolPath } from '../helpers/tools.js'

export const PYTHON_MODULE = runCommand(['python']).stdout.trim()
export const PYTHON_PATH = [dirname(PYTHON_MODULE), process.env.PYTHONPATH ?? ''].join(':')

function isThere(name: string): boolean {
  const env = { ...process.env, PYTHONPATH: PYTHON_PATH }
  return spawnSync('python3', ['-c', `import ${name}`], { env }).status === 0
}

/** What of python3 and the modules is not installed. */
export function missingOf(modules: readonly string[]): string[] {
  if (toolPath('python3') === null) return ['python3']
  return modules.filter((name) => !isThere(name)).map((name) => `Python's ${name}`)
}

export function testWithPython(
  title: string,
  modules: readonly string[],
  implementation: (t: ExecutionContext) => Promise<void>,
): void {
  const missing = missingOf(modules)
  if (missing.length === 0) test.serial(title, implementation as Implementation<[]>)
  else
    test.skip(`${title} (skipped: ${missing.join(', ')} not installed)`, implementation as Implementation<[]>)
}
