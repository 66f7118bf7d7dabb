/** Test data outside the project. Tests that need it are skipped with a message if it is missing. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext, type Implementation } from 'ava'

export const PROJECT_ROOT = fileURLToPath(new URL('../../../', import.meta.url))

export function sharedPath(...parts: string[]): string {
  return resolve(PROJECT_ROOT, '..', 'shared', ...parts)
}

/** A test that needs a folder of ../shared; skipped if it is missing. */
export function testWithShared(
  title: string,
  parts: string[],
  implementation: (t: ExecutionContext) => Promise<void>,
): void {
  const path = sharedPath(...parts)
  if (existsSync(path)) test(title, implementation as Implementation<[]>)
  else test.skip(`${title} (skipped: ${path} is missing)`, implementation as Implementation<[]>)
}
