/**
 * The program of a bundle, in Node: started for one request, it loads the runtime, RDKit and the model,
 * predicts one file and exits. Arguments: checkpoint, bits, radius, whether counts are simulated, input,
 * output.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { InferenceSession, Tensor } from 'onnxruntime-node'

interface Molecule {
  get_morgan_fp_as_uint8array(options: string): Uint8Array
  delete(): void
}
type LoadRdkit = (options: object) => Promise<{ get_mol(smiles: string): Molecule | null }>

const [checkpoint = '', bitsText = '', radius = '', counts = '', input = '', output = ''] =
  process.argv.slice(2)
const bits = Number(bitsText)
const options = JSON.stringify({
  radius: Number(radius),
  nBits: bits,
  useCountSimulation: counts === 'simulated',
})

const load = createRequire(import.meta.url)('@rdkit/rdkit') as LoadRdkit
const rdkit = await load({ print() {}, printErr() {} })
const session = await InferenceSession.create(checkpoint, { intraOpNumThreads: 1, interOpNumThreads: 1 })

const [, ...smiles] = readFileSync(input, 'utf8').trim().split(/\r?\n/)
const rows = new Float32Array(smiles.length * bits)
for (const [i, text] of smiles.entries()) {
  const molecule = rdkit.get_mol(text)
  if (molecule === null) continue
  const packed = molecule.get_morgan_fp_as_uint8array(options)
  molecule.delete()
  for (let bit = 0; bit < bits; bit++) rows[i * bits + bit] = ((packed[bit >> 3] as number) >> (bit & 7)) & 1
}
const [inputName = ''] = session.inputNames
const results = await session.run({ [inputName]: new Tensor('float32', rows, [smiles.length, bits]) })
const first = results[session.outputNames[0] ?? '']
if (first === undefined) throw new Error('expected the model to have an output')
const values = first.data as Float32Array
const width = values.length / smiles.length
writeFileSync(output, `value\n${smiles.map((_, i) => values[i * width]).join('\n')}\n`)
