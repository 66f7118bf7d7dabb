/** Messages between the harness and the bare runtime. */
export interface LoopRequest {
  readonly durationMs: number
}

export interface LoopReply {
  readonly latenciesMs: number[]
  readonly elapsedMs: number
}
