/** Fingerprints of model files. They detect a changed version without reading its files. */
import { stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { readExternalNames } from '../../src/onnx/external-names.js'
import type { ModelSource } from '../../src/repository/repository.js'

/** Follows symbolic links: a new target is a new file. Includes ctime, which cannot be set back. */
async function fingerprintOfFile(path: string): Promise<string> {
  const found = await stat(path, { bigint: true }).catch(() => null)
  if (found === null) return 'none'
  const { dev, ino, size, mtimeNs, ctimeNs } = found
  return [dev, ino, size, mtimeNs, ctimeNs].join(' ')
}

export class ModelFingerprints {
  /** By model file: its fingerprint when it was read, and the external data files it refers to. */
  readonly #references = new Map<
    string,
    { readonly fingerprint: string; readonly files: readonly string[] }
  >()

  /** Covers the model file, its external data files and its config. */
  async of({ path, config }: ModelSource): Promise<string> {
    const own = await fingerprintOfFile(path)
    const files = await this.#externalFiles(path, own)
    const others = await Promise.all(
      files.map(async (name) => `${name}: ${await fingerprintOfFile(join(dirname(path), name))}`),
    )
    return [own, ...others, JSON.stringify(config)].join('\n')
  }

  async #externalFiles(path: string, fingerprint: string): Promise<readonly string[]> {
    const known = this.#references.get(path)
    if (known?.fingerprint === fingerprint) return known.files
    const files = await readExternalNames(path)
    this.#references.set(path, { fingerprint, files })
    return files
  }

  /** Forgets all other models. */
  keep(sources: readonly ModelSource[]): void {
    const kept = new Set(sources.map(({ path }) => path))
    for (const path of this.#references.keys()) if (!kept.has(path)) this.#references.delete(path)
  }
}
