/**
 * The one file that knows how to map memory. Two libraries satisfy the same contract: `mmap-io`
 * (compiled at install, optional) and `koffi` (prebuilt) calling libc's mmap where the first could
 * not be built. mmap-io keeps sizes in an int32: 2^31 fails, and larger ones silently map less than
 * asked for, so lengths are capped before the call and asserted after it.
 *
 * A mapping is MAP_SHARED, read-only unless it is asked for otherwise. The pages stay mapped until
 * the last view of the returned bytes is collected; there is no way to unmap under a live view.
 */
import { createRequire } from 'node:module'
import { messageOf, OnecopyError } from './errors.js'

export interface MappingLibrary {
  readonly name: 'mmap-io' | 'koffi'
  /** Largest length in bytes that this library maps correctly. */
  readonly maxBytes: number
  map(fd: number, lengthBytes: number, access: MappingAccess): Uint8Array<ArrayBuffer>
}

export type MappingAccess = 'read' | 'read and write'

const require = createRequire(import.meta.url)

const PROT_READ = 1
const PROT_WRITE = 2
const MAP_SHARED = 1

interface MmapIo {
  readonly PROT_READ: number
  readonly PROT_WRITE: number
  readonly MAP_SHARED: number
  map(size: number, protection: number, flags: number, fd: number, offset: number): Buffer<ArrayBuffer>
}

/**
 * The addon of mmap-io, at the path that its package.json gives. The module itself looks it up with
 * an installer, which takes every process and thread 40 ms to load.
 */
function requireMmapIo(): MmapIo {
  const abi = `node-v${process.versions.modules}-${process.platform}-${process.arch}`
  try {
    return require(`mmap-io/build/binding/Release/${abi}/mmap_io.node`) as MmapIo
  } catch {
    return require('mmap-io') as MmapIo
  }
}

function loadMmapIo(): MappingLibrary {
  const library = requireMmapIo()
  return {
    name: 'mmap-io',
    maxBytes: 2 ** 31 - 1,
    map(fd, lengthBytes, access) {
      const protection = access === 'read' ? library.PROT_READ : library.PROT_READ | library.PROT_WRITE
      return library.map(lengthBytes, protection, library.MAP_SHARED, fd, 0)
    },
  }
}

function loadKoffi(): MappingLibrary {
  const koffi = require('koffi') as typeof import('koffi')
  const libc = koffi.load(null)
  const mmap = libc.func('void *mmap(void *addr, size_t length, int prot, int flags, int fd, int64_t offset)')
  const munmap = libc.func('int munmap(void *addr, size_t length)')
  const MAP_FAILED = 2n ** 64n - 1n
  const unmapper = new FinalizationRegistry<{ address: unknown; lengthBytes: number }>((mapping) => {
    munmap(mapping.address, mapping.lengthBytes)
  })
  return {
    name: 'koffi',
    maxBytes: Number.MAX_SAFE_INTEGER,
    map(fd, lengthBytes, access) {
      const protection = access === 'read' ? PROT_READ : PROT_READ | PROT_WRITE
      const address = mmap(null, lengthBytes, protection, MAP_SHARED, fd, 0)
      if (address === null || BigInt(koffi.address(address)) === MAP_FAILED) {
        throw new Error(`mmap failed with errno ${koffi.errno()}`)
      }
      const bytes = koffi.view(address, lengthBytes) as ArrayBuffer
      unmapper.register(bytes, { address, lengthBytes })
      return new Uint8Array(bytes)
    },
  }
}

const LOADERS = { 'mmap-io': loadMmapIo, koffi: loadKoffi }

/** Loads one library by name; throws what its loading throws. */
export function mappingLibrary(name: MappingLibrary['name']): MappingLibrary {
  return LOADERS[name]()
}

let chosen: MappingLibrary | undefined

/** mmap-io where it was built, koffi elsewhere. */
export function defaultMappingLibrary(): MappingLibrary {
  if (chosen !== undefined) return chosen
  const failures: string[] = []
  for (const name of ['mmap-io', 'koffi'] as const) {
    try {
      chosen = mappingLibrary(name)
      return chosen
    } catch (thrown) {
      failures.push(`${name}: ${messageOf(thrown).split('\n')[0]}`)
    }
  }
  throw new OnecopyError(
    'MAPPING_FAILED',
    `expected mmap-io or koffi to load, neither did (${failures.join('; ')})`,
  )
}

/**
 * Gives the allocator's free pages back to the system, where the C library can: glibc keeps those
 * between pages in use. Source: malloc_trim(3).
 */
export function returnFreePages(): void {
  try {
    const koffi = require('koffi') as typeof import('koffi')
    koffi.load(null).func('int malloc_trim(size_t pad)')(0)
  } catch {
    // musl has no such call, and needs none.
  }
}

const M_TRIM_THRESHOLD = -1
const M_MMAP_THRESHOLD = -3

/**
 * Sets glibc's thresholds for a process whose environment does not: see WORKER_ENVIRONMENT. Without
 * them, the first large buffer that is freed raises both, and free memory up to 64 MiB stays at the
 * end of a thread's arena, where malloc_trim does not look. Source: mallopt(3).
 */
export function limitFreePages(limits: { readonly mmapBytes: number; readonly trimBytes: number }): void {
  try {
    const koffi = require('koffi') as typeof import('koffi')
    const mallopt = koffi.load(null).func('int mallopt(int param, int value)')
    mallopt(M_MMAP_THRESHOLD, limits.mmapBytes)
    mallopt(M_TRIM_THRESHOLD, limits.trimBytes)
  } catch {
    // musl has no such call, and needs none.
  }
}

/**
 * Maps the first `lengthBytes` of an open file, read-only.
 * @throws OnecopyError MAPPING_FAILED when the length is out of the library's range, the call
 *   fails, or the mapping is not exactly as long as asked for.
 */
export function mapReadOnly(
  fd: number,
  lengthBytes: number,
  library: MappingLibrary = defaultMappingLibrary(),
): Uint8Array<ArrayBuffer> {
  return mapWhole(fd, lengthBytes, { access: 'read', library })
}

/** As `mapReadOnly`, but what is stored goes to the file and to every process that maps it. */
export function mapWritable(
  fd: number,
  lengthBytes: number,
  library: MappingLibrary = defaultMappingLibrary(),
): Uint8Array<ArrayBuffer> {
  return mapWhole(fd, lengthBytes, { access: 'read and write', library })
}

function mapWhole(
  fd: number,
  lengthBytes: number,
  { access, library }: { readonly access: MappingAccess; readonly library: MappingLibrary },
): Uint8Array<ArrayBuffer> {
  if (!Number.isSafeInteger(lengthBytes) || lengthBytes < 1 || lengthBytes > library.maxBytes) {
    throw new OnecopyError(
      'MAPPING_FAILED',
      `expected a length of 1 to ${library.maxBytes} bytes to map with ${library.name}, got ${lengthBytes}`,
    )
  }
  let bytes: Uint8Array<ArrayBuffer>
  try {
    bytes = library.map(fd, lengthBytes, access)
  } catch (thrown) {
    throw new OnecopyError('MAPPING_FAILED', `mapping ${lengthBytes} bytes: ${messageOf(thrown)}`, {
      cause: thrown,
    })
  }
  if (bytes.byteLength !== lengthBytes) {
    throw new OnecopyError(
      'MAPPING_FAILED',
      `expected ${lengthBytes} mapped bytes from ${library.name}, got ${bytes.byteLength}`,
    )
  }
  // A plain view: mmap-io gives a Buffer, whose methods copy less than they seem to.
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** The size of a huge page on x86-64, and on arm64 with pages of 4 KiB. */
export const HUGE_PAGE_BYTES = 2 * 1024 * 1024

const PROT_NONE = 0
const MAP_PRIVATE = 2
const MAP_FIXED = 16
const MAP_ANONYMOUS = 32
const MAP_NORESERVE = 0x4000
const MADV_COLLAPSE = 25

/** A file that is mapped so that its huge pages can be made. */
export interface HugePageMapping {
  /**
   * Makes one huge page of the pages at this offset, in another thread; false if the kernel cannot.
   */
  collapse(offsetBytes: number): Promise<boolean>
  close(): void
}

/**
 * Maps a file at a multiple of the huge page size, which MADV_COLLAPSE needs and mmap-io cannot.
 * Null if libc cannot be called or the mapping fails. Source: madvise(2), Linux 6.1 and later.
 */
export function mapForHugePages(fd: number, lengthBytes: number): HugePageMapping | null {
  try {
    const koffi = require('koffi') as typeof import('koffi')
    const libc = koffi.load(null)
    // Addresses of processes fit a double exactly: they have 47 bits.
    const mmap = libc.func(
      'int64_t mmap(int64_t address, size_t length, int protection, int flags, int fd, int64_t offset)',
    )
    const munmap = libc.func('int munmap(int64_t address, size_t length)')
    const madvise = libc.func('int madvise(int64_t address, size_t length, int advice)')
    const reservedBytes = lengthBytes + HUGE_PAGE_BYTES
    const reserve = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
    const reserved = Number(mmap(0, reservedBytes, PROT_NONE, reserve, -1, 0))
    if (reserved < 0) return null
    const start = Math.ceil(reserved / HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    const close = () => void munmap(reserved, reservedBytes)
    if (Number(mmap(start, lengthBytes, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0)) !== start) {
      close()
      return null
    }
    return {
      collapse: (offsetBytes) =>
        new Promise((resolve) => {
          const done = (failure: unknown, result: number) => resolve(failure === null && result === 0)
          madvise.async(start + offsetBytes, HUGE_PAGE_BYTES, MADV_COLLAPSE, done)
        }),
      close,
    }
  } catch {
    return null
  }
}
