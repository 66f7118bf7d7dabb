/**
 * The predictor of a bundle without a manifest: its run.sh, as ersilia-pack runs it. The model is loaded by every
 * request again; what is answered is what the bundle answers everywhere.
 */
import { spawn } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { OnecopyError } from '../errors.js'
import { formatMs } from '../units.js'
import type { Bundle } from './bundle.js'
import { formatCsv, parseCsv } from './csv.js'
import type { Row } from './orient.js'
import type { PredictOptions, Predictor } from './predictor.js'

/** Set for run.sh: where it asks `onecopy run` for a bundle that has only run.sh, neither would ever end. */
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
    // It has just ended by itself.
  }
}

/** Runs `bash run.sh FRAMEWORK INPUT OUTPUT ROOT`. */
function runScript({ bundle, inputPath, outputPath }: ScriptRun): Promise<void> {
  const { framework, runScript: script, root } = bundle
  return new Promise((resolve, reject) => {
    const child = spawn('bash', [script ?? '', framework, inputPath, outputPath, root], {
      cwd: root,
      stdio: ['ignore', 'ignore', 'pipe'],
      // What it starts ends with it.
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
        const words = lastWords.trim() || 'it said nothing'
        reject(
          new OnecopyError('MODEL_RUN_FAILED', `run.sh ended with ${signal ?? `code ${code}`}: ${words}`),
        )
      }
    })
  })
}

/** Rows of run.sh's output, by the bundle's columns where it names them. */
function rowsOf(bundle: Bundle, text: string, count: number): Row[] {
  const { header, lines } = parseCsv(text)
  if (lines.length !== count)
    throw new OnecopyError('MODEL_RUN_FAILED', `run.sh answered ${lines.length} lines for ${count} inputs`)
  const places = bundle.columns.map((name, i) => (header.includes(name) ? header.indexOf(name) : i))
  return lines.map((line) => places.map((place) => line[place] || null))
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

  /** One at a time in each worker: each run loads the model, and two would do it twice at once. */
  async predict(inputs: readonly unknown[], options: PredictOptions = {}): Promise<Row[]> {
    if (this.#waiting > this.#maxWaiting)
      throw new OnecopyError('QUEUE_FULL', `${this.#waiting} requests wait for run.sh`, {
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
    if (isCancelled?.() === true) throw new OnecopyError('REQUEST_CANCELLED', 'the client left')
    const folder = await mkdtemp(join(tmpdir(), 'onecopy-run-'))
    try {
      const inputPath = join(folder, 'input.csv')
      const outputPath = join(folder, 'output.csv')
      await writeFile(
        inputPath,
        formatCsv(
          ['input'],
          inputs.map((input) => [String(input)]),
        ),
      )
      await runScript({ bundle: this.#bundle, inputPath, outputPath })
      const text = await readFile(outputPath, 'utf8').catch(() => {
        throw new OnecopyError('MODEL_RUN_FAILED', 'run.sh ended well and wrote no output')
      })
      const rows = rowsOf(this.#bundle, text, inputs.length)
      onProgress?.(inputs.length)
      return rows
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  }

  async close(): Promise<void> {
    await this.#turn
  }
}
