/** The repository index, as the admin port answers it. */
export interface IndexEntry {
  readonly name: string
  readonly version: string
  readonly state: string
  readonly reason: string
}

export async function indexOf(adminUrl: string): Promise<IndexEntry[]> {
  const response = await fetch(`${adminUrl}/v2/repository/index`, { method: 'POST' })
  return (await response.json()) as IndexEntry[]
}
