/** Which ONNX file of a text model's folder is served. */
import { readFileSync } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { isAbsolute, join, normalize } from 'node:path'
import { invalid } from './hub-files.js'

/** Paths that exporters use. */
const PLAIN = ['onnx/model.onnx', 'model.onnx']
/** Quantised files by the CPU features they need, the fastest first; in `onnx/` or beside the config. */
const QUANTISED: readonly { readonly file: string; readonly needs: readonly string[] }[] = [
  { file: 'model_qint8_avx512_vnni.onnx', needs: ['avx512_vnni'] },
  { file: 'model_qint8_avx512.onnx', needs: ['avx512f'] },
  { file: 'model_quint8_avx2.onnx', needs: ['avx2'] },
  { file: 'model_qint8_arm64.onnx', needs: ['asimd'] },
  { file: 'model_quantized.onnx', needs: [] },
  { file: 'model_int8.onnx', needs: [] },
  { file: 'model_uint8.onnx', needs: [] },
]

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isFile() === true
}

/** Features of the CPU by their Linux names; empty if unknown. */
export function cpuFlags(): ReadonlySet<string> {
  try {
    const text = readFileSync('/proc/cpuinfo', 'utf8')
    return new Set(/^(?:flags|Features)\s*:\s*(.*)$/m.exec(text)?.[1]?.split(' ') ?? [])
  } catch {
    return new Set()
  }
}

async function firstOf(folder: string, names: readonly string[]): Promise<string | null> {
  for (const name of names) if (await isFile(join(folder, name))) return join(folder, name)
  return null
}

export async function hasOnnxFile(folder: string): Promise<boolean> {
  if ((await firstOf(folder, PLAIN)) !== null) return true
  const names = await readdir(join(folder, 'onnx')).catch(() => [])
  return names.some((name) => name.endsWith('.onnx'))
}

/**
 * The file that `choice` names, that suits the CPU best for `auto`, or the model as it was exported.
 * @throws OnecopyError REPOSITORY_INVALID naming what was looked for.
 */
export async function modelFileOf(
  folder: string,
  choice: string | undefined,
  flags: ReadonlySet<string> = cpuFlags(),
): Promise<string> {
  if (choice === undefined || choice === 'auto') {
    const suitable = QUANTISED.filter(({ needs }) => needs.every((flag) => flags.has(flag)))
    const quantised = suitable.flatMap(({ file }) => [`onnx/${file}`, file])
    const names = choice === 'auto' ? [...quantised, ...PLAIN] : PLAIN
    const found = await firstOf(folder, names)
    if (found === null) throw invalid(folder, `expected ${PLAIN.join(' or ')}, found neither`)
    return found
  }
  const relative = normalize(choice)
  if (isAbsolute(relative) || relative.split('/').includes('..') || !relative.endsWith('.onnx'))
    throw invalid(folder, `text.file: expected an ONNX file inside the folder, got ${JSON.stringify(choice)}`)
  const found = await firstOf(folder, [relative, join('onnx', relative)])
  if (found === null) throw invalid(folder, `text.file: expected a file ${relative}, found none`)
  return found
}
