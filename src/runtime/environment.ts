/**
 * What a process's environment must say before it loads the runtime. Since 1.30 the runtime's Linux build
 * uploads telemetry, keeps a device id, and leaves a file in the folder for temporary files for every process
 * that loaded it: this turns all of it off. It is read from the C environment, which a worker thread's
 * `process.env` is not. Source: https://github.com/microsoft/onnxruntime/pull/27379
 */
export const RUNTIME_ENVIRONMENT = { ORT_DISABLE_TELEMETRY: '1' } as const

/**
 * Large buffers that are freed go back to the system: loading a model packs kernels into buffers that are
 * dropped for the mapped ones, and glibc would keep them. The thresholds are above what most activations
 * take: at 128 KiB each would be mapped and unmapped in every run (a ConvNet 14%, a large MLP 12% slower,
 * 10 to 25 MB a worker smaller).
 *
 * Large buffers ask for huge pages: loading 202 MB takes a third of the page faults and a tenth less CPU.
 * Nothing changes where the system or the C library has none. Source: glibc manual, "Memory Allocation Tunables".
 */
const MIB = 1024 * 1024
export const MALLOC_LIMITS = { mmapBytes: 4 * MIB, trimBytes: 16 * MIB } as const

export const WORKER_ENVIRONMENT = {
  ...RUNTIME_ENVIRONMENT,
  MALLOC_MMAP_THRESHOLD_: String(MALLOC_LIMITS.mmapBytes),
  MALLOC_TRIM_THRESHOLD_: String(MALLOC_LIMITS.trimBytes),
  GLIBC_TUNABLES: process.env.GLIBC_TUNABLES ?? 'glibc.malloc.hugetlb=1',
}

/**
 * Working folder of child processes: Node cannot start in a folder that has been removed (`uv_cwd`). Every
 * path of the configuration is absolute.
 */
export const CHILD_DIR = '/'

/**
 * There is a worker for every CPU, so V8's helper threads for garbage would only take CPUs from other
 * workers: without them, and with a smaller young generation than V8's 16 MB, a small MLP over JSON was 20%
 * faster with 0.6 times the p99, and a worker 20 to 50 MB smaller. With 8 MB it is no faster, and a
 * worker keeps 30 MB more after load (docs/decisions/006-workers-and-threads.md).
 */
export const WORKER_FLAGS = [
  '--single-threaded-gc',
  '--max-semi-space-size=4',
  '--no-allocation-site-pretenuring',
  '--expose-gc',
]
