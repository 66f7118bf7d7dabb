/**
 * `onecopy segments`: lists the segments in shared memory and removes those of dead servers. The segments of
 * a server killed together with its workers stay in memory until the next start.
 */
import Table from 'cli-table3'
import { messageOf, OnecopyError } from '../../src/errors.js'
import { listServers, type SegmentListing, type ServerListing } from '../../src/segment/listing.js'
import { sweepSegmentFolder } from '../../src/segment/sweep.js'
import { formatAge, formatBytes } from '../../src/units.js'
import { commandLine, segmentDirOf, usageError } from './arguments.js'

interface Options {
  readonly segmentDir: string
  readonly sweep: boolean
  readonly json: boolean
}

interface Sizes {
  readonly bytes: number
  /** Less than the size after raw weights are released. */
  readonly memoryBytes: number
}

interface Removed extends Sizes {
  readonly path: string
}

const STATES: Record<ServerListing['state'], string> = {
  live: 'live',
  dead: 'orphaned',
  starting: 'starting',
  foreign: "another user's",
}

function readOptions(argv: readonly string[], environment: NodeJS.ProcessEnv): Options {
  const { values, positionals } = commandLine('segments', argv)
  if (positionals.length > 0) throw usageError(`expected options only, got ${positionals[0]}`, 'segments')
  return {
    segmentDir: segmentDirOf(values['segment-dir'], 'segments', environment),
    sweep: values.sweep === 'on',
    json: values.json === 'on',
  }
}

function sumOf(parts: readonly Sizes[]): Sizes {
  return {
    bytes: parts.reduce((sum, { bytes }) => sum + bytes, 0),
    memoryBytes: parts.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0),
  }
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}

/** The sizes are read before the removal. */
async function sweep(segmentDir: string): Promise<Removed[]> {
  const before = await listServers(segmentDir)
  const sizesAt = new Map(before.map(({ path, segments }) => [path, sumOf(segments)]))
  try {
    return (await sweepSegmentFolder(segmentDir)).map((path) => ({
      path,
      ...(sizesAt.get(path) ?? sumOf([])),
    }))
  } catch (thrown) {
    const message = `cannot remove the segments of dead servers in ${segmentDir}: ${messageOf(thrown)}`
    throw new OnecopyError('SEGMENT_FOLDER_INVALID', message, { cause: thrown })
  }
}

function ownerText({ state, owner, uid }: ServerListing): string {
  if (state === 'foreign') return `uid ${uid}`
  if (owner === null) return state === 'dead' ? 'unknown, dead' : 'unknown'
  return `pid ${owner.pid}, ${state}`
}

function stateText({ state }: ServerListing, segment: SegmentListing | undefined): string {
  const unfinished = state === 'live' ? 'unfinished' : `unfinished, ${STATES[state]}`
  const text = segment?.isFinished === false ? unfinished : STATES[state]
  // The table shows the first line of a message.
  return segment?.problem == null ? text : `${text}: ${segment.problem.split('\n')[0]}`
}

function tableOf(servers: readonly ServerListing[], nowMs: number): string {
  const table = new Table({
    head: ['owner', 'age', 'size', 'in memory', 'model', 'state'],
    colAligns: ['left', 'right', 'right', 'right', 'left', 'left'],
    style: { head: [], border: [], compact: true },
  })
  for (const server of servers) {
    const rows = server.segments.length === 0 ? [undefined] : server.segments
    for (const segment of rows) {
      table.push([
        ownerText(server),
        formatAge(nowMs - server.createdAtMs),
        segment === undefined ? '-' : formatBytes(segment.bytes),
        segment === undefined ? '-' : formatBytes(segment.memoryBytes),
        segment === undefined ? '-' : `${segment.model}@${segment.version}`,
        stateText(server, segment),
      ])
    }
  }
  return table.toString()
}

function totalLine(servers: readonly ServerListing[]): string {
  const segments = servers.flatMap((server) => server.segments)
  const dead = servers.filter(({ state }) => state === 'dead')
  const deadBytes = sumOf(dead.flatMap((server) => server.segments)).memoryBytes
  const foreign = servers.filter(({ state }) => state === 'foreign').length
  return [
    `total: ${counted(servers.length, 'server')}, ${counted(segments.length, 'segment')}, ${formatBytes(sumOf(segments).memoryBytes)}`,
    dead.length === 0 ? '' : `; ${formatBytes(deadBytes)} of dead servers (--sweep removes it)`,
    foreign === 0 ? '' : `; without the sizes of ${counted(foreign, 'server')} of other users`,
  ].join('')
}

function removedLines(removed: readonly Removed[]): string[] {
  if (removed.length === 0) return ['removed nothing: no segments of dead servers']
  const { memoryBytes: total } = sumOf(removed)
  return [
    ...removed.map(({ path, memoryBytes }) => `removed ${path}, ${formatBytes(memoryBytes)}`),
    `removed the segments of ${counted(removed.length, 'dead server')}, ${formatBytes(total)} (${total} bytes)`,
  ]
}

function textOf(segmentDir: string, servers: readonly ServerListing[], removed: readonly Removed[] | null) {
  const listed =
    servers.length === 0
      ? [`no segments in ${segmentDir}`]
      : [tableOf(servers, Date.now()), totalLine(servers)]
  return [...(removed === null ? [] : removedLines(removed)), ...listed].join('\n')
}

function jsonOf(segmentDir: string, servers: readonly ServerListing[], removed: readonly Removed[] | null) {
  const sizes = sumOf(servers.flatMap(({ segments }) => segments))
  return JSON.stringify({ segmentDir, ...sizes, servers, ...(removed === null ? {} : { removed }) }, null, 2)
}

/** Runs `onecopy segments`; resolves with the exit code. */
export async function runSegments(argv: readonly string[]): Promise<number> {
  const options = readOptions(argv, process.env)
  const { segmentDir } = options
  const removed = options.sweep ? await sweep(segmentDir) : null
  const servers = await listServers(segmentDir)
  const print = options.json ? jsonOf : textOf
  process.stdout.write(`${print(segmentDir, servers, removed)}\n`)
  return 0
}
