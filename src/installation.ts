/**
 * Where the files of this installation are. The programs run as bundles (`npm run build`) and as the modules that they
 * are bundled from, so no path may depend on the file that asks for it.
 */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Every file that is started as a process or thread of its own, below `dist`. */
export type Program =
  | 'cluster/main.js'
  | 'src/compile/compile-main.js'
  | 'src/engine/thread.js'
  | 'src/sharing/probe-main.js'
  | 'src/transform/thread.js'

/** The folder with `package.json`. */
export const PACKAGE_ROOT = packageRoot(dirname(fileURLToPath(import.meta.url)))

function packageRoot(folder: string): string {
  return existsSync(join(folder, 'package.json')) ? folder : packageRoot(dirname(folder))
}

export function programFile(program: Program): string {
  return join(PACKAGE_ROOT, 'dist', program)
}

export function packageVersion(): string {
  const text = readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}
