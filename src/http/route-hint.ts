/** The hint of a 404 for a path that is on the other port or disabled, after "no route POST ...". */

export interface PublicPortFacts {
  readonly repositoryApi: 'admin' | 'public' | 'off'
  readonly adminPort: number
  readonly systemSharedMemory: boolean
}

export function publicRouteHint(path: string, facts: PublicPortFacts): string {
  const { repositoryApi, adminPort, systemSharedMemory } = facts
  if (path.startsWith('/v2/repository/')) {
    if (repositoryApi === 'off') return ': the repository API is off (--repository-api)'
    const here = '--repository-api public has it here too'
    return repositoryApi === 'admin' ? `: it is on the admin port, ${adminPort} (${here})` : ''
  }
  if (path === '/metrics' || path === '/restart') return `: it is on the admin port, ${adminPort}`
  if (/^\/v2\/(system|cuda)sharedmemory\//.test(path) && !systemSharedMemory)
    return ': shared memory is off (--system-shared-memory)'
  return ''
}

export function adminRouteHint(
  path: string,
  {
    repositoryApi,
    port,
  }: { readonly repositoryApi: 'admin' | 'public' | 'off'; readonly port: number | null },
): string {
  if (path.startsWith('/v2/repository/') && repositoryApi === 'off')
    return ': the repository API is off (--repository-api)'
  const isPublic = path === '/run' || /^\/v2\/(models\/.*\/infer|(system|cuda)sharedmemory\/.*)$/.test(path)
  return isPublic && port !== null ? `: it is on the public port, ${port}` : ''
}
