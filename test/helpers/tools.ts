/** Programs that are not npm packages. Tests that need one are skipped with a message if it is missing. */
import { spawnSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import test, { type ExecutionContext, type Implementation } from 'ava'

const FOLDERS = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin']

/** The path of a program; null if it is not installed. */
export function toolPath(name: string): string | null {
  for (const folder of FOLDERS) {
    try {
      accessSync(join(folder, name), constants.X_OK)
      return join(folder, name)
    } catch {}
  }
  return null
}

export function testWithTools(
  title: string,
  tools: readonly string[],
  implementation: (t: ExecutionContext) => void | Promise<void>,
): void {
  const missing = tools.filter((name) => toolPath(name) === null)
  if (missing.length === 0) test.serial(title, implementation as Implementation<[]>)
  else
    test.skip(`${title} (skipped: ${missing.join(', ')} not installed)`, implementation as Implementation<[]>)
}

/** Runs a program and waits for its exit. */
export function runTool(
  name: string,
  args: readonly string[],
  { cwd, input }: { readonly cwd?: string; readonly input?: string } = {},
): { readonly code: number | null; readonly output: string } {
  const { status, stdout, stderr } = spawnSync(toolPath(name) ?? name, args, { encoding: 'utf8', cwd, input })
  return { code: status, output: `${stdout}${stderr}` }
}
