/** setup.sh that is killed, interrupted, refused half-way, run twice at once, or finds a stack that failed: run again, it goes on. */
import { readdirSync } from 'node:fs'
import t from 'tap'
import { startAws } from '../support/aws/start-aws.ts'
import { haveTool } from '../support/have-tool.ts'
import { prepareSetup } from '../support/setup-run.ts'
import { until } from '../support/until.ts'

const { front } = await startAws(t)
const inProgress = 'CREATE_IN_PROGRESS'

if (haveTool(t, 'aws', 'pip install awscli')) {
  const setup = prepareSetup(t, front)
  front.quotas.set('L-1216C47A', 64)
  const always = ['--yes', '--no-smoke', '--name', 'm2', '--bundle', setup.bundle]
  const made = (action: string): number =>
    front.calls.filter(call => call.action === action && call.outcome === 'ok').length

  t.test('killed after the upload, then refused the stack', async t => {
    const fault = front.fail({ action: 'CreateSecret', times: 1, error: 'hang' })
    const killed = setup.start(always)
    await until(() => fault.hits === 1)
    killed.kill('SIGKILL')
    t.equal(await killed.ended(), 'SIGKILL')

    front.fail({ action: 'CreateStack', times: 1, error: { status: 403, code: 'AccessDenied', message: 'Not you.' } })
    const { code, output } = await setup.run(always)
    t.equal(code, 4, output)
    t.match(output, /Failed: deploying the stack m2\.\nWhy: you may not call cloudformation:CreateStack/)
    t.match(output, /What to do: have the permission cloudformation:CreateStack given/)
    t.equal(made('CreateSecret'), 1)
    const left = readdirSync(setup.folder).filter(name => name.startsWith('muster-setup'))
    t.same(left, [], 'what the killed run had no time to remove is gone')
  })

  t.test('two runs at once: one makes the stack, and both see it fail; one of them is interrupted', async t => {
    front.stacks.ofNext = {
      states: [inProgress],
      failures: [
        {
          name: 'nodeAGroup',
          type: 'AWS::AutoScaling::AutoScalingGroup',
          status: 'CREATE_FAILED',
          reason: 'Received 1 FAILURE signal(s)',
        },
        { name: 'm2', type: 'AWS::CloudFormation::Stack', status: inProgress, reason: 'User Initiated' },
        { name: 'older', type: 'AWS::EC2::VPC', status: 'CREATE_FAILED', reason: 'of a deployment before' },
      ],
    }
    const [one, other] = [setup.start(always), setup.start(always)]
    await one.says(inProgress)
    await other.says(inProgress)
    t.equal(made('CreateStack'), 1)
    one.kill('SIGINT')
    t.equal(await one.ended(), 130)
    t.match(
      one.output(),
      /Interrupted: deploying the stack m2\.\nWhat AWS has begun, it carries on\. Run the same command again/,
    )

    const impatient = await setup.run([...always, '--no-wait'])
    t.equal(impatient.code, 6, impatient.output)
    t.match(impatient.output, /another run is under way/)

    front.stacks.tell('ROLLBACK_IN_PROGRESS', 'ROLLBACK_COMPLETE')
    t.equal(await other.ended(), 7, other.output())
    t.match(other.output(), /nodeAGroup \(AWS::AutoScaling::AutoScalingGroup\): Received 1 FAILURE signal/)
    t.notMatch(other.output(), 'of a deployment before')
    t.match(other.output(), /what there was of it is removed/)
  })

  t.test('after a first deployment that failed, it begins anew', async t => {
    const { code, output } = await setup.run(always)
    t.equal(code, 0, output)
    t.match(output, /a deployment before failed \(ROLLBACK_COMPLETE\): removes what is left of it/)
    t.equal(made('CreateStack'), 2)
    t.equal(made('CreateSecret'), 1, 'the secret is the one that it was')
  })

  t.test('a roll back that failed is carried on', async t => {
    front.stacks.tell('UPDATE_ROLLBACK_FAILED')
    const { code, output } = await setup.run(always)
    t.equal(code, 0, output)
    t.match(output, /so did its roll back: carries that on/)
    t.match(output, /nothing has changed/)
    t.equal(made('ContinueUpdateRollback'), 1)
  })

  t.test('a deletion that failed is told, and done again', async t => {
    front.stacks.tell('DELETE_FAILED')
    const { code, output } = await setup.run(always)
    t.equal(code, 7, output)
    t.match(output, /finish that first: \.\/setup\.sh --delete --name m2/)
    const deleted = await setup.run(['--delete', '--yes', '--name', 'm2'])
    t.equal(deleted.code, 0, deleted.output)
  })
}
