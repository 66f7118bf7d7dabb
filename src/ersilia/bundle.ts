/**
 * Reads an Ersilia model bundle, in the layout of eos-template or as packed by ersilia-pack
 * (`ID/DATE-UUID/model/...`). Metadata and examples are read completely; checkpoints are only referenced.
 */
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { parse as parseYaml } from 'yaml'
import * as z from 'zod'
import { messageOf, OnecopyError } from '../errors.js'
import { type CsvTable, duplicateName, firstColumn, parseCsv } from './csv.js'
import { decodeText } from './csv-text.js'
import { FRAMEWORK, findBundle } from './find-bundle.js'
import {
  checkpointPath,
  MANIFEST_FILE,
  type Manifest,
  readManifest,
  withFeaturizerPaths,
} from './manifest.js'
import { convertCell, type OutputType } from './orient.js'

const RUN_SCRIPT = 'run.sh'

/** The model card. Unknown keys are passed on unchanged. */
const CardSchema = z.looseObject({
  Identifier: z.string().min(1),
  Slug: z.string().min(1),
  Task: z.union([z.string(), z.array(z.string())]).nullish(),
  'Output Type': z.union([z.string(), z.array(z.string())]).nullish(),
  'Output Consistency': z.string().nullish(),
})

export type Card = z.output<typeof CardSchema>

export interface Bundle {
  /** Absolute path of the folder that contains `model/`. */
  readonly root: string
  readonly framework: string
  readonly card: Card
  /** Null: the bundle is served by its run.sh, with one process per request. */
  readonly manifest: Manifest | null
  /** Null without a manifest. */
  readonly checkpoint: string | null
  /** Null if there is none. */
  readonly runScript: string | null
  /** Column names of a result, in order. */
  readonly columns: readonly string[]
  /** Types by column from run_columns.csv: float, integer, string or empty. */
  readonly columnTypes: readonly string[]
  readonly inputHeader: readonly string[]
  readonly exampleInputs: readonly string[]
  /** Null if the bundle has no example output. */
  readonly exampleOutputs: CsvTable | null
  readonly outputType: OutputType
}

function invalid(message: string): OnecopyError {
  return new OnecopyError('BUNDLE_INVALID', message)
}

async function readBytes(path: string): Promise<Buffer | null> {
  try {
    return await readFile(path)
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return null
    throw invalid(`${path}: ${messageOf(thrown)}`)
  }
}

/** @throws OnecopyError BUNDLE_INVALID for text in another encoding, which would be changed silently. */
async function readText(path: string): Promise<string | null> {
  const bytes = await readBytes(path)
  if (bytes === null) return null
  try {
    return decodeText(bytes).replace(/^\ufeff/, '')
  } catch (thrown) {
    throw invalid(`${path}: ${messageOf(thrown)}`)
  }
}

async function readCard(root: string): Promise<Card> {
  const sources = [
    ['information.json', (text: string) => (JSON.parse(text) as { card?: unknown }).card],
    ['metadata.json', (text: string) => JSON.parse(text) as unknown],
    ['metadata.yml', (text: string) => parseYaml(text) as unknown],
  ] as const
  for (const [name, read] of sources) {
    const path = join(root, name)
    const text = await readText(path)
    if (text === null) continue
    try {
      const value = read(text)
      // Some bundles nest the card one level deeper.
      const card = (value as { card?: unknown } | null)?.card ?? value
      return CardSchema.parse(card)
    } catch (thrown) {
      const why = thrown instanceof z.ZodError ? z.prettifyError(thrown) : messageOf(thrown)
      throw invalid(`${path}: ${why}`)
    }
  }
  throw invalid(`expected metadata.json, metadata.yml or information.json in ${root}, found none`)
}

async function readCsv(path: string): Promise<CsvTable | null> {
  const bytes = await readBytes(path)
  try {
    return bytes === null ? null : parseCsv(bytes)
  } catch (thrown) {
    throw invalid(`${path}: ${messageOf(thrown)}`)
  }
}

/** The packer's file names for examples have changed over time. */
async function readExample(framework: string, role: 'input' | 'output'): Promise<CsvTable | null> {
  const folder = join(framework, 'examples')
  return (await readCsv(join(folder, `run_${role}.csv`))) ?? (await readCsv(join(folder, `${role}.csv`)))
}

function moleculesOf(inputs: CsvTable, framework: string): string[] {
  try {
    return firstColumn(inputs)
  } catch (thrown) {
    throw invalid(`${framework}, example input: ${messageOf(thrown)}`)
  }
}

/** Columns of run_columns.csv, found by the names in its header. */
function declaredColumns(table: CsvTable | null): { name: string; type: string }[] {
  if (table === null) return []
  const header = table.header.map((name) => name.trim().toLowerCase())
  const [nameAt, typeAt] = [header.indexOf('name'), header.indexOf('type')]
  if (nameAt < 0) throw invalid(`run_columns.csv: expected a column "name", got ${header.join(', ')}`)
  return table.lines
    .map((line) => ({ name: line[nameAt] ?? '', type: (line[typeAt] ?? '').trim().toLowerCase() }))
    .filter(({ name }) => name !== '')
}

const NUMBER_TYPES = ['float', 'integer']

/**
 * Determined by the card if it declares types: string if there are several. Otherwise by the columns: integer
 * or float if all are numeric, float unless all are integers. A column of unknown type may contain text.
 */
function outputTypeOf(card: Card, columnTypes: readonly string[]): OutputType {
  const named = [card['Output Type'] ?? []].flat().map((type) => type.trim().toLowerCase())
  const declared = new Set(named.filter((type) => type !== ''))
  const [only] = declared
  if (declared.size > 0) return declared.size === 1 && isNumberType(only) ? only : 'string'
  if (!columnTypes.every(isNumberType)) return 'string'
  return columnTypes.every((type) => type === 'integer') ? 'integer' : 'float'
}

function isNumberType(type: string | undefined): type is 'float' | 'integer' {
  return type !== undefined && NUMBER_TYPES.includes(type)
}

/**
 * The type of an undeclared column, derived from its examples: float unless one is text. Without example
 * values, float as well if the examples are the only source of the column names.
 */
function exampleType(name: string, examples: CsvTable | null, areColumnsDeclared: boolean): string {
  const at = examples?.header.indexOf(name) ?? -1
  const cells = (examples?.lines ?? []).flatMap((line) => (line[at] ? [line[at]] : []))
  if (cells.length === 0) return areColumnsDeclared ? '' : 'float'
  return cells.every((cell) => NOT_A_NUMBER.test(cell) || convertCell(cell, 'float') !== null)
    ? 'float'
    : 'string'
}

/** How programs write NaN, infinity and missing numbers. */
const NOT_A_NUMBER = /^\s*[+-]?(nan|na|inf(inity)?|null|none)\s*$/i

/** @throws OnecopyError BUNDLE_INVALID. */
export async function readBundle(path: string): Promise<Bundle> {
  const root = await findBundle(path)
  const framework = join(root, FRAMEWORK)
  const found = await readManifest(join(framework, MANIFEST_FILE))
  const manifest = found === null ? null : withFeaturizerPaths(root, found)
  const card = await readCard(root)
  const declared = declaredColumns(await readCsv(join(framework, 'columns', 'run_columns.csv')))
  const inputs = await readExample(framework, 'input')
  const outputs = await readExample(framework, 'output')
  const exampleInputs = inputs === null ? [] : moleculesOf(inputs, framework)
  const columns = declared.length > 0 ? declared.map(({ name }) => name) : (outputs?.header ?? [])
  if (columns.length === 0)
    throw invalid(`${framework}: expected columns/run_columns.csv or examples/run_output.csv, found neither`)
  const duplicate = duplicateName(columns)
  if (duplicate !== null)
    throw invalid(`${framework}: expected distinct column names, got ${JSON.stringify(duplicate)} twice`)
  const columnTypes = columns.map((name) => declared.find((one) => one.name === name)?.type ?? '')
  const runScript = join(framework, RUN_SCRIPT)
  const hasScript = (await stat(runScript).catch(() => null))?.isFile() === true
  if (manifest === null && !hasScript)
    throw invalid(`${framework}: expected ${MANIFEST_FILE} or ${RUN_SCRIPT}, found neither`)
  return {
    root,
    framework,
    card,
    manifest,
    checkpoint: manifest === null ? null : checkpointPath(root, manifest),
    runScript: hasScript ? runScript : null,
    columns,
    columnTypes,
    inputHeader: inputs?.header ?? ['input'],
    exampleInputs,
    exampleOutputs: outputs,
    outputType: outputTypeOf(
      card,
      columnTypes.map((type, i) => type || exampleType(columns[i] ?? '', outputs, declared.length > 0)),
    ),
  }
}

/** Whether repeated runs may give different results for a molecule; such results are not cached. */
export function isVariable({ card }: Bundle): boolean {
  const tasks = [card.Task ?? []].flat()
  return card['Output Consistency'] === 'Variable' || tasks.some((task) => task.includes('Generat'))
}
