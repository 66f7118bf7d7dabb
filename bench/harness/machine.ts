/** The machine and the versions that a result was measured with. */
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os'
import { join } from 'node:path'
import { usableCpus } from '../../src/process/cpus.js'
import { formatBytes } from '../../src/units.js'
import { PACKAGE_ROOT } from './paths.js'

const PACKAGES = ['onnxruntime-node', 'koa', '@koa/router', 'autocannon']

export interface Machine {
  readonly cpuModel: string
  readonly cores: number
  readonly usableCpus: number
  readonly memoryBytes: number
  readonly kernel: string
  readonly node: string
  /** Versions by package name, including onecopy itself. */
  readonly packages: Readonly<Record<string, string>>
  /** Load average over the minute before the bench. */
  readonly loadAverage: number
}

function versionIn(folder: string): string {
  return (JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { version: string }).version
}

export function describeMachine(): Machine {
  const installed = PACKAGES.map((name) => [name, versionIn(join(PACKAGE_ROOT, 'node_modules', name))])
  return {
    cpuModel: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    usableCpus: usableCpus(),
    memoryBytes: totalmem(),
    kernel: release(),
    node: process.version,
    packages: { onecopy: versionIn(PACKAGE_ROOT), ...Object.fromEntries(installed) },
    loadAverage: loadavg()[0] ?? Number.NaN,
  }
}

export function machineLine(machine: Machine): string {
  const { cpuModel, cores, memoryBytes, kernel, node, packages, loadAverage } = machine
  const versions = Object.entries(packages).map(([name, version]) => `${name} ${version}`)
  return (
    `${cpuModel}, ${cores} cores, ${formatBytes(memoryBytes)}, Linux ${kernel}, Node ${node}, ` +
    `${versions.join(', ')}; load average before: ${loadAverage.toFixed(1)}`
  )
}
