/** The server that owns a model with two generations, and the outputs of each generation. */
import { readdirSync, readFileSync } from 'node:fs'
import { Agent } from 'node:http'
import { join } from 'node:path'
import { send } from '../harness/client.js'
import { type FolderUse, folderUse, openFiles, untilReleased } from '../harness/footprint.js'
import { changeModel, putModel, referencesOf } from '../harness/model-change.js'
import { MODELS_DIR, SCRATCH_DIR } from '../harness/paths.js'
import { processesInGroup, processTree } from '../harness/processes.js'
import { type InferRequest, inferRequests, inputTensors } from '../harness/requests.js'
import { emptyCache, type RunningServer, segmentFolder, startOnecopy } from '../harness/servers.js'
import type { Stage } from '../harness/stage.js'
import { isSameOutput, outputOf } from '../harness/verify.js'
import { parseRecipe, recipeName } from '../models/recipes.js'
import { ensureModel, type GeneratedModel } from '../models/store.js'
import type { Target } from './commands.js'

const EXIT_POLL_MS = 5

export class SoakServer {
  readonly target: Target
  readonly #stage: Stage
  readonly #files: readonly GeneratedModel[]
  readonly #request: InferRequest
  /** Outputs by generation, from a server that loads the model file. */
  readonly #references: readonly (readonly number[])[]
  /** Exact outputs of the owner's worker, by generation. */
  readonly #answers: (readonly number[])[] = []
  readonly #repositoryDir: string
  readonly #cacheDir: string
  #current = 0
  #owner: RunningServer | null = null
  /** Runs with an output of no generation, or of a generation that was not current. */
  wrongAnswers = 0

  private constructor(parts: {
    readonly stage: Stage
    readonly files: readonly GeneratedModel[]
    readonly request: InferRequest
    readonly references: readonly (readonly number[])[]
    readonly row: readonly number[]
  }) {
    const { stage, files, request, references, row } = parts
    this.#stage = stage
    this.#files = files
    this.#request = request
    this.#references = references
    this.#repositoryDir = stage.folder(SCRATCH_DIR, 'soak-')
    this.#cacheDir = emptyCache(stage)
    this.target = { segmentDir: segmentFolder(stage), model: files[0]?.name ?? '', input: 'input', row }
    this.#put()
  }

  static async open(stage: Stage, modelName: string): Promise<SoakServer> {
    const recipe = parseRecipe(modelName)
    const name = recipeName(recipe)
    const repositoryDir = join(MODELS_DIR, `soak-${name}`)
    const files = [
      await ensureModel(recipe, repositoryDir, { name, version: 1 }),
      await ensureModel(recipe, repositoryDir, { name, version: 2 }),
    ]
    const [request] = inferRequests(recipe, { encoding: 'binary', count: 1 })
    const [input] = inputTensors(recipe, 1, 1)
    if (request === undefined || input === undefined) throw new Error('expected a request')
    const references = (await referencesOf(stage, files, [request])).map(([values]) => values ?? [])
    return new SoakServer({ stage, files, request, references, row: Array.from(input.data, Number) })
  }

  get #server(): RunningServer {
    if (this.#owner === null) throw new Error('expected an owner')
    return this.#owner
  }

  get serverFolder(): string {
    const [folder = ''] = readdirSync(this.target.segmentDir)
    return join(this.target.segmentDir, folder)
  }

  #put(): void {
    const file = this.#files[this.#current]
    if (file !== undefined) putModel(this.#repositoryDir, file.name, file.path)
  }

  async start(): Promise<void> {
    this.#owner = await startOnecopy({
      ...{ stage: this.#stage, model: { repositoryDir: this.#repositoryDir }, workers: 1 },
      ...{ segmentDir: this.target.segmentDir, cacheDir: this.#cacheDir },
      flags: ['--model-control', 'explicit', '--load-model', '*'],
    })
    await this.#recordAnswer()
  }

  /** Switches to the other generation. */
  async swap(): Promise<void> {
    this.changeFile()
    await changeModel(this.#server, 'load', this.target.model)
    await this.#recordAnswer()
  }

  /** Loads both generations once, so that later measurements include what a first load opens. */
  async warmUp(): Promise<void> {
    for (const _ of this.#files) await this.swap()
  }

  /** The next owner serves the other generation. */
  changeFile(): void {
    this.#current = 1 - this.#current
    this.#put()
  }

  async #recordAnswer(): Promise<void> {
    const agent = new Agent()
    const values = outputOf(await send({ agent, port: this.#server.port, request: this.#request }))
    agent.destroy()
    if (!isSameOutput(this.#references[this.#current] ?? [], values))
      throw new Error('the owner returned a wrong output')
    this.#answers[this.#current] ??= values
  }

  /** The generation with exactly this output. Counts it as wrong and returns null if there is none. */
  generationOf(values: readonly number[]): number | null {
    const generation = this.#answers.findIndex((answer) =>
      answer.every((value, i) => Object.is(value, values[i])),
    )
    if (generation !== -1) return generation
    this.wrongAnswers++
    return null
  }

  /** Counts an output of any generation except the current one as wrong. */
  expectCurrent(values: readonly number[]): void {
    const generation = this.generationOf(values)
    if (generation !== null && generation !== this.#current) this.wrongAnswers++
  }

  /** SIGKILL to the primary and its workers; resolves when all have exited. */
  async killOwner(): Promise<void> {
    const { child } = this.#server
    child.killGroup()
    while (processesInGroup(child.pid).length > 0)
      await new Promise((resolve) => setTimeout(resolve, EXIT_POLL_MS))
    await this.#stage.stop(child)
    this.#owner = null
  }

  async stopOwner(): Promise<void> {
    await this.#stage.stop(this.#server.child)
    this.#owner = null
  }

  /** Milliseconds until raw weights are released. */
  async released(): Promise<number> {
    const startedMs = performance.now()
    await untilReleased(this.target.segmentDir)
    return performance.now() - startedMs
  }

  ownerFiles(): number {
    return processTree(this.#server.child.pid).reduce((sum, pid) => sum + openFiles(pid), 0)
  }

  async memory(): Promise<FolderUse> {
    return await folderUse(this.target.segmentDir)
  }

  /** Segments that a process maps, each once. */
  segmentsMappedBy(pid: number): number {
    const maps = readFileSync(`/proc/${pid}/maps`, 'latin1').split('\n')
    const inodes = maps.filter((line) => line.includes('model.segment')).map((line) => line.split(/ +/)[4])
    return new Set(inodes).size
  }
}
