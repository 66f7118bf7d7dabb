/** What the harness and the bare runtime say to each other. */
export interface LoopRequest {
  readonly durationMs: number
}

export interface LoopReply {
  readonly latenciesMs: number[]
  readonly elapsedMs: number
}
