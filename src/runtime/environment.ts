/**
 * What a process's environment must say before it loads the runtime. Since 1.30 the runtime's Linux build uploads
 * telemetry, keeps a device id, and leaves a file in the folder for temporary files for every process that loaded it:
 * this turns all of it off. It is read from the C environment, which a worker thread's `process.env` is not.
 * Source: https://github.com/microsoft/onnxruntime/pull/27379
 */
export const RUNTIME_ENVIRONMENT = { ORT_DISABLE_TELEMETRY: '1' } as const
