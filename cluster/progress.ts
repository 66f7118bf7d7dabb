/**
 * Progress of a start: a bar on a terminal, plain lines elsewhere, and a table of models at the
 * end.
 */
import { SingleBar } from 'cli-progress'
import Table from 'cli-table3'
import type { PublishedModel } from '../src/compile/publish.js'
import type { Log } from '../src/log.js'
import type { ModelSource } from '../src/repository/repository.js'
import { formatBytes } from '../src/units.js'

export interface Progress {
  started(source: ModelSource): void
  done(published: PublishedModel, done: number, total: number): void
  end(): void
}

const DONE: Record<PublishedModel['origin'], string> = {
  compiled: 'compiled, segment written',
  cache: 'segment written from the cache',
  'dead server': 'segment adopted from a dead server',
}

export function createProgress(total: number, log: Log): Progress {
  if (process.stderr.isTTY) {
    const bar = new SingleBar({
      format: 'models {bar} {value}/{total}  {note}',
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
    })
    bar.start(total, 0, { note: '' })
    return {
      started: ({ name, version }) => bar.update({ note: `${name}/${version}` }),
      done: (_, done) => bar.update(done),
      end: () => bar.stop(),
    }
  }
  return {
    started: ({ name, version }) => log.debug({ model: name, version }, 'preparing the model'),
    done: ({ source, segment, origin }, done) =>
      log.info(
        { model: source.name, version: source.version, origin, segmentBytes: segment.bytes, done, total },
        DONE[origin],
      ),
    end: () => {},
  }
}

/** One row for each model version: its size, its memory and how much of it workers share. */
export function readyTable(published: readonly PublishedModel[], workers: number): string {
  const table = new Table({
    head: ['model', 'version', 'weights', 'segment', 'each worker', 'sharing', 'workers'],
    colAligns: ['left', 'right', 'right', 'right', 'right', 'left', 'right'],
    style: { head: [], border: [], compact: true },
  })
  for (const { source, segment, privateBytes } of published) {
    const { sharing } = segment.header
    table.push([
      source.name,
      source.version,
      formatBytes(sharing.weightsBytes),
      formatBytes(segment.bytes),
      privateBytes === null ? '-' : formatBytes(privateBytes),
      sharing.state,
      String(workers),
    ])
  }
  return table.toString()
}
