/** Fingerprints of model files: they tell that a version has changed without reading it. */
import { stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { readExternalNames } from '../../src/onnx/external-names.js'
import type { ModelSource } from '../../src/repository/repository.js'

/** Links are followed: one that leads elsewhere now is another file. The time of the last change cannot be set back. */
async function looksOfFile(path: string): Promise<string> {
  const found = await stat(path, { bigint: true }).catch(() => null)
  if (found === null) return 'none'
  const { dev, ino, size, mtimeNs, ctimeNs } = found
  return [dev, ino, size, mtimeNs, ctimeNs].join(' ')
}

export class ModelFingerprints {
  /** By model file: how it looked when it was read, and which files it named. */
  readonly #named = new Map<string, { readonly fingerprint: string; readonly files: readonly string[] }>()

  /** Of the model's file, each file it keeps external data in, wherever below its folder that is, and its config. */
  async of({ path, config }: ModelSource): Promise<string> {
    const own = await looksOfFile(path)
    const files = await this.#filesNamedBy(path, own)
    const others = await Promise.all(
      files.map(async (name) => `${name}: ${await looksOfFile(join(dirname(path), name))}`),
    )
    return [own, ...others, JSON.stringify(config)].join('\n')
  }

  async #filesNamedBy(path: string, fingerprint: string): Promise<readonly string[]> {
    const known = this.#named.get(path)
    if (known?.fingerprint === fingerprint) return known.files
    const files = await readExternalNames(path)
    this.#named.set(path, { fingerprint, files })
    return files
  }

  /** Forgets the models that are not among these. */
  keep(sources: readonly ModelSource[]): void {
    const kept = new Set(sources.map(({ path }) => path))
    for (const path of this.#named.keys()) if (!kept.has(path)) this.#named.delete(path)
  }
}
