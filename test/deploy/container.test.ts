/** deploy/Dockerfile as it stands. What it builds is carried out in container.long.ts. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { dockerfile, final, getsPastIgnore, readCopy, stages, stepsOf } from '../support/dockerfile.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

t.test('the image is small, without root, and says how it is', async t => {
  t.same(
    stages.map(({ name }) => name),
    ['build', 'packages', 'final'],
  )
  t.same(stepsOf(final, 'USER'), ['node'], 'no root')
  t.ok(stepsOf(final, 'HEALTHCHECK').length === 1)
  t.notMatch(
    dockerfile.replaceAll(/^#.*\n/gm, ''),
    /:latest|MUSTER_\w*(TOKEN|SECRET|PASSWORD)\w*=\S/,
    'pinned, and no secret in it',
  )
  const environment = stepsOf(final, 'ENV').join(' ')
  t.match(environment, /MUSTER_HOST=0\.0\.0\.0/, 'reached from outside the container')
  t.match(environment, /NODE_ENV=production/)
})

t.test('it has what a node reads beside its code', t => {
  const copied = stepsOf(final, 'COPY').flatMap(step => readCopy(step).paths)
  for (const path of ['docs', 'openapi', 'package.json', 'deploy/user-data']) t.ok(copied.includes(path), path)
  t.end()
})

t.test('what it copies is there, and gets past .dockerignore', async t => {
  for (const stage of stages)
    for (const { from, paths } of stepsOf(stage, 'COPY').map(readCopy))
      for (const path of from === undefined ? paths : [])
        t.ok(getsPastIgnore(path) && existsSync(join(root, path)), `${stage.name}: ${path}`)
})
