import test from 'ava'
import { OomKills, oomKillCount } from '../../src/process/oom-kills.js'

const V2 = '/sys/fs/cgroup/pod/memory.events'

function eventsWith(kills: number): string {
  return `low 0\nhigh 3\nmax 12\noom 4\noom_kill ${kills}\noom_group_kill 0\n`
}

test('OOM kills are counted in the control group, or on the whole machine without one', (t) => {
  const from = (contents: Record<string, string>) => oomKillCount((path) => contents[path] ?? null)
  t.is(from({ '/proc/self/cgroup': '0::/pod\n', [V2]: eventsWith(2), '/proc/vmstat': 'oom_kill 9\n' }), 2)
  t.is(
    from({
      '/proc/self/cgroup': '4:memory:/pod\n0::/\n',
      '/sys/fs/cgroup/memory/pod/memory.oom_control': 'oom_kill_disable 0\nunder_oom 0\noom_kill 3\n',
    }),
    3,
  )
  t.is(from({ '/proc/self/cgroup': '0::/\n', '/proc/vmstat': 'nr_free_pages 1\noom_kill 9\n' }), 9)
  t.is(from({}), null)
})

test('each OOM kill explains one process exit, and kills before the start explain none', (t) => {
  let kills = 5
  const oomKills = new OomKills((path) =>
    path === '/proc/self/cgroup' ? '0::/pod\n' : path === V2 ? eventsWith(kills) : null,
  )
  t.false(oomKills.take())
  kills += 2
  t.true(oomKills.take())
  t.true(oomKills.take())
  t.false(oomKills.take())
})
