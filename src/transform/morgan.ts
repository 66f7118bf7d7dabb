/**
 * SMILES to a Morgan fingerprint, by RDKit compiled to WebAssembly: bit for bit that of RDKit in Python, for the
 * options offered here. RDKit is built without checks for deep recursion: a molecule that is too large traps the
 * module, and every later call into it fails. So length is limited, and after a trap the module is thrown away.
 */
import { createRequire } from 'node:module'
import { z } from 'zod'
import { OnecopyError } from '../errors.js'
import { DATATYPES, type NumericData } from '../tensor.js'
import { type InputTransform, type RowEncoder, TransformBroken } from './transform.js'

const MAX_BITS = 65_536

export const MorganOptionsSchema = z.strictObject({
  /** Bonds around each atom. */
  radius: z.int().min(0).max(10).default(2),
  bits: z
    .int()
    .min(8)
    .max(MAX_BITS)
    .refine((bits) => bits % 8 === 0, 'expected a multiple of 8')
    .default(2048),
  /**
   * none: whether an environment occurs. simulated: four bits an environment, set from 1, 2, 4 and 8 occurrences on
   * (RDKit's countSimulation).
   */
  counts: z.enum(['none', 'simulated']).default('none'),
  datatype: z.enum(['FP32', 'FP64', 'UINT8', 'INT32', 'INT64']).default('FP32'),
  /** Longer SMILES are refused: RDKit has no limit of its own, and traps. */
  max_characters: z.int().min(1).max(10_000).default(500),
})

export type MorganOptions = z.output<typeof MorganOptionsSchema>

/** The part of RDKit that is used. Source: https://github.com/rdkit/rdkit/tree/master/Code/MinimalLib */
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

/** Rings, branches, charges, double bonds. */
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
      `expected the optional package ${PACKAGE} to be installed: fingerprints are made by it (npm install ${PACKAGE})`,
      { cause: thrown },
    )
  }
  // It would print a line for every SMILES that it cannot read.
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
      // Whatever comes out of the module other than an answer: its memory is in no known state.
      throw new TransformBroken(`RDKit failed on ${JSON.stringify(item.slice(0, 60))}`, { cause: thrown })
    }
  }

  /** Null where the text is no molecule, or one without atoms. */
  #fingerprint(smiles: string): Uint8Array | null {
    const molecule = this.#rdkit.get_mol(smiles)
    if (molecule === null) return null
    const isUsable = molecule.is_valid() && molecule.get_num_atoms() > 0
    const packed = isUsable ? molecule.get_morgan_fp_as_uint8array(this.#fingerprintOptions) : null
    molecule.delete()
    return packed
  }
}

/** Bit b is bit b mod 8 of byte b / 8, the lowest first. */
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
  // RDKit's WebAssembly and its heap: workers of 152 MB against 66.
  privateBytes: 85e6,
  rows: ({ bits, datatype }) => [{ datatype, shape: [bits] }],
  async open(options) {
    const encoder = new MorganEncoder(await loadRdkit(), options)
    // The first molecule takes a hundred times as long as the next ones: here nobody waits for it.
    encoder.encode(WARM_UP, [new DATATYPES[options.datatype].storage(options.bits)])
    return encoder
  },
}
