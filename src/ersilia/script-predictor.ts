/**
 * The predictor of a bundle without a manifest: it runs run.sh as ersilia-pack does. Every request loads the
 * model again, but the results equal those of the bundle elsewhere.
 */
import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { messageOf, OnecopyError } from '../errors.js'
import { formatMs } from '../units.js'
import type { Bundle } from './bundle.js'
import { type CsvTable, formatCsv, parseCsv } from './csv.js'
import type { Row } from './orient.js'
import type { PredictOptions, Predictor } from './predictor.js'

/**
 * Set for run.sh. It prevents endless recursion if run.sh calls `onecopy run` for a bundle that only has
 * run.sh.
 */
export const INSIDE_RUN_SCRIPT = 'ONECOPY_INSIDE_RUN_SCRIPT'
const TIMEOUT_MS = 10 * 60_000
const STDERR_TAIL_CHARACTERS = 2000

interface ScriptRun {
  readonly bundle: Bundle
  readonly inputPath: string
  readonly outputPath: string
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // The process has already ended.
  }
}

/** Runs `bash run.sh FRAMEWORK INPUT OUTPUT ROOT`. */
function runScript({ bundle, inputPath, outputPath }: ScriptRun): Promise<void> {
  const { framework, runScript: script, root } = bundle
  return new Promise((resolve, reject) => {
    const child = spawn('bash', [script ?? '', framework, inputPath, outputPath, root], {
      cwd: root,
      stdio: ['ignore', 'ignore', 'pipe'],
      // A process group of its own, so that its children are killed with it.
      detached: true,
      env: { ...process.env, [INSIDE_RUN_SCRIPT]: '1' },
    })
    let lastWords = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      lastWords = (lastWords + text).slice(-STDERR_TAIL_CHARACTERS)
    })
    let isLate = false
    const timer = setTimeout(() => {
      isLate = true
      killGroup(child.pid)
    }, TIMEOUT_MS)
    child.on('error', (thrown) => {
      clearTimeout(timer)
      reject(new OnecopyError('MODEL_RUN_FAILED', `run.sh cannot start: ${thrown.message}`))
    })
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      if (code === 0) resolve()
      else if (isLate)
        reject(new OnecopyError('DEADLINE_EXCEEDED', `run.sh took longer than ${formatMs(TIMEOUT_MS)}`))
      else {
        const words = lastWords.trim() || 'it wrote no error message'
        reject(
          new OnecopyError('MODEL_RUN_FAILED', `run.sh ended with ${signal ?? `code ${code}`}: ${words}`),
        )
      }
    })
  })
}

function failed(message: string): OnecopyError {
  return new OnecopyError('MODEL_RUN_FAILED', `run.sh ${message}`)
}

/** Positions of the bundle's columns in the output: by name, or by order if the names differ. */
function placesOf(columns: readonly string[], header: readonly string[]): number[] {
  const places = columns.map((name) => header.indexOf(name))
  const twice = columns.find((name) => header.indexOf(name) !== header.lastIndexOf(name))
  if (twice !== undefined) throw failed(`returned the column ${JSON.stringify(twice)} twice`)
  if (!places.includes(-1)) return places
  const isInOrder = places.every((place, i) => place === -1 || place === i)
  if (isInOrder && header.length >= columns.length) return columns.map((_, i) => i)
  throw failed(`returned the columns ${header.join(', ')}: expected ${columns.join(', ')}`)
}

/**
 * Parses run.sh's output. @throws OnecopyError MODEL_RUN_FAILED unless there is a complete row for each
 * input.
 */
function rowsOf({ columns }: Bundle, bytes: Uint8Array, count: number): Row[] {
  let table: CsvTable
  try {
    table = parseCsv(bytes)
  } catch (thrown) {
    throw failed(`wrote unreadable output: ${messageOf(thrown)}`)
  }
  const { header, lines } = table
  if (lines.length !== count) throw failed(`returned ${lines.length} lines for ${count} inputs`)
  const places = placesOf(columns, header)
  return lines.map((line, i) => {
    // Some writers use an empty line for a row without values.
    const isEmpty = line.length === 1 && line[0] === ''
    if (!isEmpty && line.length !== header.length)
      throw failed(
        `returned ${line.length} fields in row ${i + 1}: expected ${header.length}, as in the header`,
      )
    return places.map((place) => line[place] || null)
  })
}

/**
 * Whether a CSV file can represent the text: Python's reader stops at NUL, and unpaired surrogates have no
 * UTF-8 form.
 */
function isWritable(input: string): boolean {
  return !input.includes('\0') && !/\p{Surrogate}/u.test(input)
}

export class SpawnedPredictor implements Predictor {
  readonly #bundle: Bundle
  readonly #maxWaiting: number
  #waiting = 0
  #turn: Promise<unknown> = Promise.resolve()

  constructor(bundle: Bundle, maxWaiting: number) {
    this.#bundle = bundle
    this.#maxWaiting = maxWaiting
  }

  /** Serialised within each worker, because concurrent runs would load the model several times. */
  async predict(inputs: readonly unknown[], options: PredictOptions = {}): Promise<Row[]> {
    if (this.#waiting > this.#maxWaiting)
      throw new OnecopyError('QUEUE_FULL', `${this.#waiting} requests are queued for run.sh`, {
        retryAfterSeconds: 1,
      })
    this.#waiting++
    const mine = this.#turn.then(() => this.#run(inputs, options))
    this.#turn = mine.catch(() => {})
    try {
      return await mine
    } finally {
      this.#waiting--
    }
  }

  async #run(inputs: readonly unknown[], { isCancelled, onProgress }: PredictOptions): Promise<Row[]> {
    if (isCancelled?.() === true) throw new OnecopyError('REQUEST_CANCELLED', 'the client disconnected')
    const texts = inputs.map(String)
    // Text that the file cannot represent is not a molecule.
    const given = texts.filter(isWritable)
    const nulls = this.#bundle.columns.map(() => null)
    if (given.length === 0) return texts.map(() => nulls)
    const folder = await mkdtemp(join(tmpdir(), 'onecopy-run-'))
    try {
      const inputPath = join(folder, 'input.csv')
      const outputPath = join(folder, 'output.csv')
      await writeFile(
        inputPath,
        formatCsv(
          ['input'],
          given.map((input) => [input]),
        ),
      )
      await runScript({ bundle: this.#bundle, inputPath, outputPath })
      const bytes = await readFile(outputPath).catch(() => {
        throw failed('succeeded but wrote no output')
      })
      const rows = rowsOf(this.#bundle, bytes, given.length)[Symbol.iterator]()
      onProgress?.(inputs.length)
      return texts.map((text) => (isWritable(text) ? (rows.next().value as Row) : nulls))
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  }

  async close(): Promise<void> {
    await this.#turn
  }
}
