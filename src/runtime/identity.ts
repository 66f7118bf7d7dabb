/** What a compiled segment depends on besides the model: the runtime's version and the CPU's features. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { arch } from 'node:os'

const require = createRequire(import.meta.url)

/** Version of the installed ONNX Runtime, read without loading its library. */
export function runtimeVersion(): string {
  return (require('onnxruntime-node/package.json') as { version: string }).version
}

/**
 * A digest of the CPU's feature flags: the runtime chooses kernels, and so the layout of packed weights,
 * by them. Source: proc_cpuinfo(5); the line is `flags` on x86 and `Features` on Arm.
 */
export function cpuDigest(
  readText: (path: string) => string = (path) => readFileSync(path, 'latin1'),
): string {
  const flags = readText('/proc/cpuinfo').match(/^(?:flags|Features)\s*:\s*(.*)$/m)?.[1] ?? ''
  const sorted = flags.trim().split(/\s+/).sort().join(' ')
  return createHash('sha256').update(`${arch()} ${sorted}`).digest('hex').slice(0, 16)
}
