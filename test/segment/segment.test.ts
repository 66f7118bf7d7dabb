import {
  chmodSync,
  copyFileSync,
  lstatSync,
  readFileSync,
  renameSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { openCache } from '../../src/compile/cache.js'
import { Compiler } from '../../src/compile/compile.js'
import { OnecopyError } from '../../src/errors.js'
import { attachSegment, referenceSegment, type SegmentReference } from '../../src/segment/attach.js'
import { createServerFolder, removeFolder } from '../../src/segment/folder.js'
import { decodeHeader, encodeHeader, headerRoomBytes, type SegmentHeader } from '../../src/segment/layout.js'
import { verifySegment, writeSegment } from '../../src/segment/write.js'
import { imagePathOf } from '../helpers/compile.js'
import { slowModel, writeModel } from '../helpers/onnx-builder.js'
import { temporaryFolder } from '../helpers/server.js'

interface Written {
  readonly path: string
  readonly header: SegmentHeader
  readonly reference: SegmentReference
}

async function writtenSegment(t: ExecutionContext): Promise<Written> {
  const cacheDir = temporaryFolder(t)
  const models = writeModel(temporaryFolder(t), 'slow', slowModel())
  const cache = await openCache(cacheDir)
  const compiler = new Compiler({ cache, timeoutMs: 60_000, signal: new AbortController().signal })
  const imagePath = imagePathOf(await compiler.compile(join(models, 'slow', '1', 'model.onnx')))
  compiler.close()
  const server = await createServerFolder(temporaryFolder(t, '/dev/shm'))
  t.teardown(() => removeFolder(server.path))
  const segment = await writeSegment({ imagePath, server, model: { name: 'slow', version: '1' } })
  return { path: segment.path, header: segment.header, reference: referenceSegment(segment) }
}

function change(path: string, edit: (bytes: Buffer) => void): void {
  const bytes = readFileSync(path)
  edit(bytes)
  chmodSync(path, 0o600)
  writeFileSync(path, bytes)
  chmodSync(path, 0o400)
}

function flip(bytes: Buffer, at: number): void {
  bytes[at] = (bytes[at] ?? 0) ^ 1
}

async function refusedAttach(t: ExecutionContext, reference: SegmentReference, says: RegExp): Promise<void> {
  const error = await t.throwsAsync(attachSegment(reference), { instanceOf: OnecopyError })
  t.is(error?.code, 'SEGMENT_INVALID')
  t.regex(error?.message ?? '', says)
}

test('a written segment attaches, and its header describes the content', async (t) => {
  const { reference, header } = await writtenSegment(t)
  const attached = await attachSegment(reference)
  t.deepEqual(attached.header, header)
  t.is(attached.graph.byteLength, header.graph.bytes)
  t.is(header.sharing.state, 'shared')
  t.deepEqual(header.model, { name: 'slow', version: '1' })
  t.is(header.owner?.pid, process.pid)
})

test('a header survives encoding, and one changed byte is detected', async (t) => {
  const { header } = await writtenSegment(t)
  const room = headerRoomBytes(header)
  const fitting = {
    ...header,
    graph: { ...header.graph, offsetBytes: room },
    data: { ...header.data, offsetBytes: header.data.offsetBytes + room },
    fileBytes: header.fileBytes + room,
  }
  const bytes = encodeHeader(fitting, room)
  t.deepEqual(decodeHeader(bytes), fitting)
  for (const [at, says] of [
    [0, /magic/],
    [8, /format/],
    [60, /checksum/],
  ] as const) {
    const changed = Buffer.from(bytes)
    flip(changed, at)
    t.throws(() => decodeHeader(changed), { instanceOf: OnecopyError, message: says })
  }
})

test('attach rejects a file other than the one the primary verified', async (t) => {
  const { path, reference, header } = await writtenSegment(t)
  const copy = `${path}.copy`
  copyFileSync(path, copy)

  chmodSync(path, 0o444)
  await refusedAttach(t, reference, /mode 0400, got 0444/)
  chmodSync(path, 0o400)
  await refusedAttach(t, reference, /changed after it was verified/)
  const now = () => ({ ...reference, changedNs: String(lstatSync(path, { bigint: true }).ctimeNs) })
  await attachSegment(now())

  await refusedAttach(t, { ...now(), fileBytes: reference.fileBytes + 1 }, /expected \d+ bytes, got/)
  await refusedAttach(t, { ...now(), graphSha256: 'f'.repeat(64) }, /digest/)

  change(path, (bytes) => flip(bytes, header.data.offsetBytes + 5))
  await refusedAttach(t, reference, /changed after it was verified/)
  change(path, (bytes) => flip(bytes, header.graph.offsetBytes + 5))
  await refusedAttach(t, now(), /digest/)

  chmodSync(path, 0o600)
  truncateSync(path, 100)
  chmodSync(path, 0o400)
  await refusedAttach(t, reference, /expected \d+ bytes, got 100/)

  chmodSync(copy, 0o400)
  renameSync(copy, path)
  await refusedAttach(t, reference, /inode/)
})

test('attach follows no symbolic links and reports a missing file', async (t) => {
  const { path, reference } = await writtenSegment(t)
  const link = `${path}.link`
  symlinkSync(path, link)
  await refusedAttach(t, { ...reference, path: link }, /ELOOP/)
  await refusedAttach(t, { ...reference, path: `${path}.none` }, /ENOENT/)
})

test('verification reads every byte: header, graph and weights', async (t) => {
  const { path, header } = await writtenSegment(t)
  const verify = async () => {
    const file = await open(path)
    try {
      return await verifySegment(file)
    } finally {
      await file.close()
    }
  }
  t.deepEqual(await verify(), header)
  for (const [at, says] of [
    [40, /header/],
    [header.graph.offsetBytes, /graph/],
    [header.data.offsetBytes, /weights/],
    [header.fileBytes - 1, /weights/],
  ] as const) {
    change(path, (bytes) => flip(bytes, at))
    await t.throwsAsync(verify(), { instanceOf: OnecopyError, message: says })
    change(path, (bytes) => flip(bytes, at))
  }
  chmodSync(path, 0o600)
  truncateSync(path, header.fileBytes - 1)
  await t.throwsAsync(verify(), { message: /bytes, the file has/ })
})
