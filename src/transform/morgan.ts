/**
 * Converts SMILES to Morgan fingerprints with RDKit compiled to WebAssembly. The result is bitwise identical
 * to RDKit in Python for the options offered here. The RDKit build does not check for deep recursion: a
 * molecule that is too large traps the module, and every later call fails. So the length is limited, and
 * after a trap the module is replaced.
 */
import { createRequire } from 'node:module'
import * as z from 'zod'
import { OnecopyError } from '../errors.js'
import { DATATYPES, type NumericData } from '../tensor.js'
import { type InputTransform, type RowEncoder, TransformBroken } from './transform.js'

const MAX_BITS = 65_536

export const MorganOptionsSchema = z.strictObject({
  /** Maximum number of bonds from each atom. */
  radius: z.int().min(0).max(10).default(2),
  bits: z
    .int()
    .min(8)
    .max(MAX_BITS)
    .refine((bits) => bits % 8 === 0, 'expected a multiple of 8')
    .default(2048),
  /**
   * none: one bit per environment. simulated: four bits per environment, set at 1, 2, 4 and 8 occurrences
   * (RDKit's countSimulation).
   */
  counts: z.enum(['none', 'simulated']).default('none'),
  datatype: z.enum(['FP32', 'FP64', 'UINT8', 'INT32', 'INT64']).default('FP32'),
  /** Longer SMILES are rejected: RDKit has no limit itself and traps. */
  max_characters: z.int().min(1).max(10_000).default(500),
})

export type MorganOptions = z.output<typeof MorganOptionsSchema>

/** The used part of RDKit. Source: https://github.com/rdkit/rdkit/tree/master/Code/MinimalLib */
interface Molecule {
  is_valid(): boolean
  get_num_atoms(): number
  get_morgan_fp_as_uint8array(options: string): Uint8Array
  delete(): void
}
interface Rdkit {
  get_mol(smiles: string): Molecule | null
}
type LoadRdkit = (options: { print(): void; printErr(): void }) => Promise<Rdkit>

/** Contains rings, branches, charges and double bonds. */
const WARM_UP = 'C[N+](C)(C)CC(=O)Oc1ccc2ccccc2c1'
const PACKAGE = '@rdkit/rdkit'

async function loadRdkit(): Promise<Rdkit> {
  const require = createRequire(import.meta.url)
  let load: LoadRdkit
  try {
    load = require(PACKAGE) as LoadRdkit
  } catch (thrown) {
    throw new OnecopyError(
      'TRANSFORM_UNAVAILABLE',
      `expected the optional package ${PACKAGE} to be installed, because it computes the fingerprints (npm install ${PACKAGE})`,
      { cause: thrown },
    )
  }
  // Otherwise it prints a line for every invalid SMILES.
  return await load({ print() {}, printErr() {} })
}

class MorganEncoder implements RowEncoder {
  readonly #rdkit: Rdkit
  readonly #options: MorganOptions
  readonly #fingerprintOptions: string

  constructor(rdkit: Rdkit, options: MorganOptions) {
    this.#rdkit = rdkit
    this.#options = options
    this.#fingerprintOptions = JSON.stringify({
      radius: options.radius,
      nBits: options.bits,
      useCountSimulation: options.counts === 'simulated',
    })
  }

  encode(item: unknown, [row]: readonly NumericData[]): boolean {
    if (typeof item !== 'string' || item.length > this.#options.max_characters) return false
    try {
      const packed = this.#fingerprint(item)
      if (packed === null) return false
      unpackBits(packed, row as NumericData)
      return true
    } catch (thrown) {
      // After any exception the module's memory is in an unknown state.
      throw new TransformBroken(`RDKit failed on ${JSON.stringify(item.slice(0, 60))}`, { cause: thrown })
    }
  }

  /** Null if the text is not a molecule or has no atoms. */
  #fingerprint(smiles: string): Uint8Array | null {
    const molecule = this.#rdkit.get_mol(smiles)
    if (molecule === null) return null
    const isUsable = molecule.is_valid() && molecule.get_num_atoms() > 0
    const packed = isUsable ? molecule.get_morgan_fp_as_uint8array(this.#fingerprintOptions) : null
    molecule.delete()
    return packed
  }
}

/** Bit b is bit b mod 8 of byte b / 8, lowest bit first. */
function unpackBits(packed: Uint8Array, row: NumericData): void {
  const one = row instanceof BigInt64Array || row instanceof BigUint64Array ? 1n : 1
  for (let byte = 0; byte < packed.length; byte++) {
    const bits = packed[byte] as number
    if (bits === 0) continue
    for (let bit = 0; bit < 8; bit++) if ((bits >> bit) & 1) row[byte * 8 + bit] = one as never
  }
}

export const morgan: InputTransform<MorganOptions> = {
  options: MorganOptionsSchema,
  // RDKit's WebAssembly and heap: workers take 152 MB instead of 66 MB.
  privateBytes: 85e6,
  rows: ({ bits, datatype }) => [{ datatype, shape: [bits] }],
  async open(options) {
    const encoder = new MorganEncoder(await loadRdkit(), options)
    // The first molecule takes a hundred times as long as later ones, so it is run before any request.
    encoder.encode(WARM_UP, [new DATATYPES[options.datatype].storage(options.bits)])
    return encoder
  },
}
