Feature: Every step of the vocabulary
  As somebody who trusts the conformance kit's results
  I want each of its steps to be used here at least once
  So that none of them passes whatever happens

  Scenario: Order and ends of tasks
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: order, version: '1.0.0' }
    do:
      - outer:
          do:
            - one: { set: { items: [1, 2, 3], deep: { name: '${ .who }' } } }
            - two: { set: '${ . }' }
      - passed: { if: .absent, set: { never: true } }
      - three: { set: '${ . }' }
    """
    And given the workflow input is:
    """yaml
    who: Ada
    """
    When the workflow is executed
    Then the workflow should complete
    And the workflow should complete with output:
    """yaml
    items: [1, 2, 3]
    deep: { name: Ada }
    """
    And the workflow output should have properties 'items', 'deep.name', 'items[2]'
    And the workflow output should have a 'deep.name' property with value:
    """yaml
    Ada
    """
    And the workflow output should have an 'items' property containing 3 items
    And outer should run first
    And one should run first
    And one should run before two
    And three should run after two
    And three should run last
    And outer should complete
    And one should complete with output:
    """json
    { "items": [1, 2, 3], "deep": { "name": "Ada" } }
    """

  Scenario: A fault, of the workflow and of its task
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: fault, version: '1.0.0' }
    do:
      - refuse:
          raise:
            error: { type: 'https://example.com/refused', status: 409, title: Refused }
    """
    When the workflow is executed
    Then the workflow should fault
    And the workflow should fault with error:
    """yaml
    type: https://example.com/refused
    status: 409
    title: Refused
    instance: /do/0/refuse
    """
    And refuse should fault
    And refuse should fault with error:
    """yaml
    status: 409
    """

  Scenario: A branch that lost is cancelled
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: race, version: '1.0.0' }
    do:
      - race:
          fork:
            compete: true
            branches:
              - slow: { wait: { hours: 1 } }
              - quick: { set: { won: quick } }
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    won: quick
    """
    And slow should cancel
    And quick should complete

  Scenario: A workflow that is cancelled
    Given a workflow with definition:
    """yaml
    document: { dsl: '1.0.3', namespace: own, name: cancelled, version: '1.0.0' }
    do:
      - long: { wait: { hours: 1 } }
    """
    When the workflow is cancelled while long runs
    Then the workflow should cancel
    And long should cancel
